// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/add.hpp>

#include "row_kernels.hpp"

namespace lmkit::kernels {

void add(float* sum, const float* x, std::int64_t rows, std::int64_t cols, Stream stream) noexcept {
  const RowKernels& kernels = row_kernels_in_use();
  for_rows(rows, cols, stream, [&](std::int64_t r) { kernels.add(sum + r * cols, x + r * cols, cols); });
}

}  // namespace lmkit::kernels
