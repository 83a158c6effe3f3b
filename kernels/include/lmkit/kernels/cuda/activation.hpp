// SPDX-License-Identifier: Apache-2.0
//
// silu_mul on a GPU (../activation.hpp), on fp16 or bf16. cols is a multiple of 8, rows are 16-byte aligned.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// gate_up: (rows, 2, cols): a row's gate then its up; out: (rows, cols), not overlapping
Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols, Dtype dtype, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
