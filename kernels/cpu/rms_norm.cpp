// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/rms_norm.hpp>

#include "row_kernels.hpp"

namespace lmkit::kernels {

void rms_norm(const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps, Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) { kernels.rms_norm(x + r * cols, weight, out + r * cols, cols, eps); });
}

void norm_heads(float* x, std::int64_t stride, const float* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim, float eps,
                Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, heads * dim, stream, [&](std::int64_t r) {
    for (std::int64_t h = 0; h < heads; ++h) {
      float* const head = x + r * stride + h * dim;
      kernels.rms_norm(head, weight + h * dim, head, dim, eps);
    }
  });
}

}  // namespace lmkit::kernels
