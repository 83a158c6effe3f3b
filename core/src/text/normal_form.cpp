// SPDX-License-Identifier: Apache-2.0
#include "normal_form.hpp"

#include <lmkit/text/utf8.hpp>
#include <utf8proc.h>

#include <algorithm>
#include <vector>

namespace lmkit {
namespace {

int combining_class(utf8proc_int32_t c) noexcept { return utf8proc_get_property(c)->combining_class; }

std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> out;
  out.reserve(text.size());
  int boundary = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    utf8proc_int32_t parts[8];  // a canonical decomposition has at most 4
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 8,
                                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
    out.insert(out.end(), parts, parts + std::max<utf8proc_ssize_t>(count, 0));
    at += c.length;
  }
  return out;
}

// Marks between two starters go by combining class. (utf8proc's own way takes quadratic time.)
void order_marks(std::vector<utf8proc_int32_t>& text) {
  for (auto run = text.begin(); run != text.end();) {
    run = std::find_if(run, text.end(), [](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(run, text.end(), [](auto c) { return combining_class(c) == 0; });
    std::ranges::stable_sort(run, end, {}, combining_class);
    run = end;
  }
}

}  // namespace

std::string to_nfc(std::string_view text) {
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return std::string(text);
  std::vector<utf8proc_int32_t> characters = decompose(text);
  order_marks(characters);
  const auto count = utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, static_cast<char32_t>(characters[static_cast<std::size_t>(i)]));
  return out;
}

}  // namespace lmkit
