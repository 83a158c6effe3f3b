// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>
#include <lmkit/base/half.hpp>

#include <cmath>
#include <cstring>
#include <limits>

using namespace lmkit;

namespace {
// binary16 read from its definition
double half_value(unsigned bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
}  // namespace

TEST_CASE("every finite half converts to its value and back") {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7c00) == 0x7c00) continue;
    const Half h{static_cast<std::uint16_t>(bits)};
    REQUIRE(to_float(h) == half_value(bits));
    REQUIRE(to_half(to_float(h)).bits == bits);
  }
}

TEST_CASE("to_half rounds to nearest even between neighbours") {
  for (unsigned bits = 0; bits < 0x7bff; ++bits) {
    const double low = half_value(bits), high = half_value(bits + 1), middle = (low + high) / 2;
    REQUIRE(to_half(static_cast<float>(middle)).bits == (bits & 1 ? bits + 1 : bits));
    REQUIRE(to_half(std::nextafter(static_cast<float>(middle), 0.0f)).bits == bits);
    REQUIRE(to_half(std::nextafter(static_cast<float>(middle), 1e9f)).bits == bits + 1);
  }
  CHECK(to_half(65520.0f).bits == 0x7c00);
  CHECK(to_half(65519.0f).bits == 0x7bff);
  CHECK(std::isnan(to_float(to_half(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(to_half(-std::numeric_limits<float>::infinity()).bits == 0xfc00);
}

TEST_CASE("bfloat16 rounds to nearest even") {
  CHECK(to_bfloat16(1.0f).bits == 0x3f80);
  CHECK(to_bfloat16(1.00390625f).bits == 0x3f80);   // half way, even below
  CHECK(to_bfloat16(1.01171875f).bits == 0x3f82);   // half way, even above
  CHECK(to_float(BFloat16{0xc000}) == -2.0f);
}
