// SPDX-License-Identifier: Apache-2.0
//
// UTF-8: one decoder (Unicode 3.9, table 3-7) and what follows from it. Offsets and lengths are bytes.
//
// What is not UTF-8 is cut into maximal ill-formed subparts, each of which becomes one U+FFFD: the practice of the
// Unicode standard, of Python's errors="replace" and of the web. Nothing here throws. [any-thread]
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lmkit {

inline constexpr char32_t replacement_character = 0xFFFD;

enum class Utf8Kind : std::uint8_t { valid, ill_formed, incomplete };  // incomplete: the text ends inside a character

struct Utf8Char {
  char32_t value;  // replacement_character unless valid
  std::uint8_t length;
  Utf8Kind kind;
};

// The character (or maximal ill-formed subpart) that starts at `at` < text.size().
Utf8Char decode_utf8(std::string_view text, std::size_t at) noexcept;

void append_utf8(std::string& out, char32_t value);

// Offset of the first byte that is not part of valid UTF-8; none if the text is valid.
std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept;
inline bool is_valid_utf8(std::string_view text) noexcept { return !first_invalid_utf8(text); }

std::string replace_invalid_utf8(std::string_view text);

}  // namespace lmkit
