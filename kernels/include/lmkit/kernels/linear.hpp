// SPDX-License-Identifier: Apache-2.0
//
// Linear: y = x Wᵀ (+ bias), where W may be several matrices side by side, in the order of the device that packed it.
#pragma once

#include <lmkit/kernels/gemm.hpp>

#include <array>
#include <cstdint>

namespace lmkit::kernels {

struct Linear {
  std::int64_t rows = 0;  // of all parts together; x (tokens, cols) becomes y (tokens, rows)
  std::int64_t cols = 0;
  std::array<PackedMatrix, 3> parts{};  // of which part_count are used; on a GPU one, of 16-bit floats
  int part_count = 0;                   // 0 where a rank holds nothing: y is 0
  const void* bias = nullptr;           // (rows) of the device's dtype, or null
};

}  // namespace lmkit::kernels
