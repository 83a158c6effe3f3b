// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/rms_norm.hpp>

#include <cmath>

namespace lmkit::kernels {
namespace {

void normalise(const float* x, const float* weight, float* out, std::int64_t cols, float eps) noexcept {
  float squares = 0;
  for (std::int64_t c = 0; c < cols; ++c) squares += x[c] * x[c];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(cols) + eps);
  for (std::int64_t c = 0; c < cols; ++c) out[c] = x[c] * scale * weight[c];
}

}  // namespace

void rms_norm(const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps, Stream stream) noexcept {
  stream.parallel_for(static_cast<std::int32_t>(rows),
                      [&](std::int32_t r, int) { normalise(x + r * cols, weight, out + r * cols, cols, eps); });
}

void add_rms_norm(float* residual, const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps,
                  Stream stream) noexcept {
  stream.parallel_for(static_cast<std::int32_t>(rows), [&](std::int32_t r, int) {
    float* row = residual + r * cols;
    for (std::int64_t c = 0; c < cols; ++c) row[c] += x[r * cols + c];
    normalise(row, weight, out + r * cols, cols, eps);
  });
}

}  // namespace lmkit::kernels
