// SPDX-License-Identifier: Apache-2.0
//
// MatrixView: a weight matrix where it lies, usually in a memory-mapped file. Owns nothing.
#pragma once

#include <lmkit/base/dtype.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>

namespace lmkit {

struct MatrixView {
  WeightFormat format = WeightFormat::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;       // a multiple of the format's block
  std::int64_t row_bytes = 0;  // from one row to the next
  const std::byte* data = nullptr;

  static constexpr std::int64_t packed_row_bytes(WeightFormat format, std::int64_t cols) noexcept {
    return cols / block_of(format).values * block_of(format).bytes;
  }

  const std::byte* row(std::int64_t r) const noexcept { return data + r * row_bytes; }

  MatrixView row_range(std::int64_t begin, std::int64_t end) const noexcept {
    assert(0 <= begin && begin <= end && end <= rows);
    return {format, end - begin, cols, row_bytes, row(begin)};
  }

  // begin and end fall on block boundaries
  MatrixView col_range(std::int64_t begin, std::int64_t end) const noexcept {
    assert(0 <= begin && begin <= end && end <= cols && begin % block_of(format).values == 0);
    return {format, rows, end - begin, row_bytes, data + packed_row_bytes(format, begin)};
  }
};

}  // namespace lmkit
