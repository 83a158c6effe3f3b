// SPDX-License-Identifier: Apache-2.0
//
// add_bias: y += bias, per row. Cost: reads and writes y once. On a GPU it is part of gemm.
#pragma once

#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels {

// y: (rows, cols); bias: (cols)
void add_bias(float* y, const float* bias, std::int64_t rows, std::int64_t cols, Stream stream) noexcept;

}  // namespace lmkit::kernels
