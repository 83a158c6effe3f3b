// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/activation.hpp>

#include "row_kernels.hpp"

namespace lmkit::kernels {

void silu_mul(const float* gate_up, float* out, std::int64_t rows, std::int64_t cols, Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) {
    const float* gate = gate_up + 2 * r * cols;
    kernels.silu_mul(gate, gate + cols, out + r * cols, cols);
  });
}

}  // namespace lmkit::kernels
