// SPDX-License-Identifier: Apache-2.0
//
// rms_norm on a GPU (../rms_norm.hpp), on fp16 or bf16 activations with sums in fp32. Reads x once, and once more from the
// cache. cols is a multiple of 8, rows are 16-byte aligned.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// x, out: (rows, cols), may be the same; weight: (cols)
Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps, Dtype dtype, Stream stream) noexcept;

// Each head of x by itself, in place. x: (rows, heads, dim), `stride` values from row to row; weight: (heads, dim). A warp takes
// a head; dim and stride are multiples of 8.
Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim, float eps, Dtype dtype,
                  Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
