// SPDX-License-Identifier: Apache-2.0
//
// Unsigned arithmetic that says when it wraps: for sizes and offsets that come out of a file.
#pragma once

#include <cstdint>
#include <optional>

namespace lmkit {

constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t sum = a + b;
  if (sum < a) return std::nullopt;
  return sum;
}

constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) noexcept {
  if (b != 0 && a > UINT64_MAX / b) return std::nullopt;
  return a * b;
}

}  // namespace lmkit
