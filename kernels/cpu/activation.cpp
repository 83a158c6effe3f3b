// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/activation.hpp>

#include <cmath>

namespace lmkit::kernels {

void silu_mul(const float* gate_up, float* out, std::int64_t rows, std::int64_t cols, Stream stream) noexcept {
  stream.parallel_for(static_cast<std::int32_t>(rows), [&](std::int32_t r, int) {
    const float* gate = gate_up + 2 * r * cols;
    const float* up = gate + cols;
    for (std::int64_t c = 0; c < cols; ++c) out[r * cols + c] = gate[c] / (1.0f + std::exp(-gate[c])) * up[c];
  });
}

}  // namespace lmkit::kernels
