// SPDX-License-Identifier: Apache-2.0
//
// Is a text well-formed UTF-8 without control characters? What a plugin says goes to a terminal as it is.
#pragma once

#include <cstddef>
#include <string_view>

namespace lmkit {

constexpr bool is_printable_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      if (lead < 0x20 || lead == 0x7f) return false;
      ++i;
      continue;
    }
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    unsigned code = lead & (0x7fu >> length);
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0u) != 0x80u) return false;
      code = code << 6 | (byte(i + k) & 0x3fu);
    }
    constexpr unsigned smallest[] = {0, 0, 0xa0, 0x800, 0x10000};  // below 0xa0: C1 control characters
    if (lead < 0xc2 || lead > 0xf4 || code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    i += length;
  }
  return true;
}

static_assert(is_printable_utf8("4-bit K\xc3\xa4se \xe2\x82\xac \xf0\x9f\x99\x82"));
static_assert(!is_printable_utf8("\x1b[31m") && !is_printable_utf8("\xc3") && !is_printable_utf8("\xc0\xaf") && !is_printable_utf8("\xed\xa0\x80"));

}  // namespace lmkit
