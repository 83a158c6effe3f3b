// SPDX-License-Identifier: Apache-2.0
//
// IEEE 754 binary16 and bfloat16 as storage types: two bytes, converted to and from float by hand so that the same
// code runs on every host and on a GPU. Rounding is to nearest even.
#pragma once

#include <lmkit/base/host_device.hpp>

#include <cstdint>

namespace lmkit {

struct Half {
  std::uint16_t bits;
};

struct BFloat16 {
  std::uint16_t bits;
};

LMKIT_HD constexpr float to_float(Half h) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = h.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return __builtin_bit_cast(float, sign | 0x7f800000u | (magnitude << 13));  // inf, nan
  // Read as a float the exponent is 112 too small; one multiplication mends it, for subnormals too.
  const float value = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, value) | sign);
}

LMKIT_HD constexpr Half to_half(float x) noexcept {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return Half{static_cast<std::uint16_t>(sign | 0x7e00u)};   // nan
  if (magnitude >= 0x477ff000u) return Half{static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 lets the float adder do shift and rounding
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return Half{static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return Half{static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

LMKIT_HD constexpr float to_float(BFloat16 b) noexcept {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(b.bits) << 16);
}

LMKIT_HD constexpr BFloat16 to_bfloat16(float x) noexcept {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return BFloat16{static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return BFloat16{static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace lmkit
