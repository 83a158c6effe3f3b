// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/bias.hpp>

#include "row_kernels.hpp"

namespace lmkit::kernels {

void add_bias(float* y, const float* bias, std::int64_t rows, std::int64_t cols, Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) { kernels.add(y + r * cols, bias, cols); });
}

}  // namespace lmkit::kernels
