// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>

#include <lmkit/text/utf8.hpp>

using namespace lmkit;
using namespace std::string_literals;

TEST_CASE("utf8: what is valid stays as it is") {
  const std::string text = "a\0b é 日 😀 \xF4\x8F\xBF\xBF \xEE\x80\x80 \xED\x9F\xBF"s;
  CHECK(is_valid_utf8(text));
  CHECK(replace_invalid_utf8(text) == text);
}

TEST_CASE("utf8: every code point goes there and back") {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Char read = decode_utf8(text, 0);
    REQUIRE(read.value == c);
    REQUIRE(read.length == text.size());
    REQUIRE(read.kind == Utf8Kind::valid);
  }
}

// Expected texts are Python's bytes.decode(errors="replace").
TEST_CASE("utf8: each maximal ill-formed subpart becomes one U+FFFD") {
  const std::string r = "\xEF\xBF\xBD";
  const std::pair<std::string, std::string> cases[] = {
      {"\x80", r},
      {"\xC0\xAF", r + r},                        // overlong
      {"\xE0\x80\xAF", r + r + r},                // overlong
      {"\xF0\x80\x80\xAF", r + r + r + r},        // overlong
      {"\xED\xA0\x80", r + r + r},                // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},        // beyond U+10FFFF
      {"\xFE\xFF", r + r},
      {"\xE6\x97", r},                            // cut short by the end
      {"\xF0\x9F\x98z", r + "z"},                 // cut short by another character
      {"\xF0\x9F\xF0\x9F\x98\x80", r + "\xF0\x9F\x98\x80"},
      {"a\xE1\x80\xE2\xF0\x91\x92\xF1\xBFz", "a" + r + r + r + r + "z"},  // the standard's own example
  };
  for (const auto& [text, expected] : cases) CHECK(replace_invalid_utf8(text) == expected);
}

TEST_CASE("utf8: the first error is found, also behind long ASCII") {
  for (std::size_t n = 0; n < 40; ++n) {
    const std::string ascii(n, 'x');
    CHECK_FALSE(first_invalid_utf8(ascii));
    CHECK(first_invalid_utf8(ascii + "\xC3") == n);
    CHECK(first_invalid_utf8(ascii + "é\xFFyyyyyyyyyyyyy") == n + 2);
  }
  CHECK(decode_utf8("\xF0\x9F\x98", 0).kind == Utf8Kind::incomplete);
  CHECK(decode_utf8("\xF0\x9F\x98", 0).length == 3);
}
