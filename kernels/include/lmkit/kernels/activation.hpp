// SPDX-License-Identifier: Apache-2.0
//
// silu_mul: out = silu(gate) * up with silu(x) = x / (1 + exp(-x)) (SwiGLU, arXiv:2002.05202).
#pragma once

#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels {

// gate_up: (rows, 2, cols): a row's gate then its up; out: (rows, cols), not overlapping
void silu_mul(const float* gate_up, float* out, std::int64_t rows, std::int64_t cols, Stream stream) noexcept;

}  // namespace lmkit::kernels
