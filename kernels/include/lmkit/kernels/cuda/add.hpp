// SPDX-License-Identifier: Apache-2.0
//
// add on a GPU (../add.hpp), on fp16 or bf16. cols is a multiple of 8, rows are 16-byte aligned.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// sum, x: (rows, cols), not overlapping
Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols, Dtype dtype, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
