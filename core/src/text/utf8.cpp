// SPDX-License-Identifier: Apache-2.0
#include <lmkit/text/utf8.hpp>

#include <cstring>

namespace lmkit {
namespace {

// What a lead byte says: how long the character is, and the range of its second byte (shorter than 80..BF where the
// rest would be overlong, a surrogate or beyond U+10FFFF).
struct Lead {
  std::uint8_t length, low, high;
};

constexpr Lead lead_of(std::uint8_t byte) noexcept {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Bytes from `at` on that are ASCII, eight at a time.
std::size_t skip_ascii(std::string_view text, std::size_t at) noexcept {
  constexpr std::uint64_t high_bits = 0x8080808080808080u;
  for (std::uint64_t eight; at + 8 <= text.size(); at += 8) {
    std::memcpy(&eight, text.data() + at, 8);
    if (eight & high_bits) break;
  }
  while (at < text.size() && static_cast<std::uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[at + i]); };
  const std::uint8_t first = byte(0);
  const Lead lead = lead_of(first);
  if (lead.length == 1) return {first, 1, Utf8Kind::valid};
  if (lead.length == 0) return {replacement_character, 1, Utf8Kind::ill_formed};

  char32_t value = first & (0x7Fu >> lead.length);
  for (std::uint8_t i = 1; i < lead.length; ++i) {
    if (at + i == text.size()) return {replacement_character, i, Utf8Kind::incomplete};
    const std::uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {replacement_character, i, Utf8Kind::ill_formed};
    value = value << 6 | (byte(i) & 0x3Fu);
  }
  return {value, lead.length, Utf8Kind::valid};
}

void append_utf8(std::string& out, char32_t value) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (value >> shift & 0x3F)); };
  if (value < 0x80) {
    out += static_cast<char>(value);
  } else if (value < 0x800) {
    out += static_cast<char>(0xC0 | value >> 6), tail(0);
  } else if (value < 0x10000) {
    out += static_cast<char>(0xE0 | value >> 12), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | value >> 18), tail(12), tail(6), tail(0);
  }
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept {
  for (std::size_t at = skip_ascii(text, 0); at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    if (c.kind != Utf8Kind::valid) return at;
    at += c.length;
    if (at < text.size() && static_cast<std::uint8_t>(text[at]) < 0x80) at = skip_ascii(text, at);
  }
  return std::nullopt;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    append_utf8(out, c.value);
    at += c.length;
  }
  return out;
}

}  // namespace lmkit
