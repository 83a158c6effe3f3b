// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/rms_norm.hpp>

#include "row_kernels.hpp"

namespace lmkit::kernels {

void rms_norm(const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps, Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) { kernels.rms_norm(x + r * cols, weight, out + r * cols, cols, eps); });
}

void add_rms_norm(float* residual, const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps,
                  Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) {
    kernels.add(residual + r * cols, x + r * cols, cols);
    kernels.rms_norm(residual + r * cols, weight, out + r * cols, cols, eps);
  });
}

}  // namespace lmkit::kernels
