// SPDX-License-Identifier: Apache-2.0
#include "split_pattern.hpp"

#include <fmt/format.h>
#include <lmkit/base/error.hpp>

namespace lmkit {
namespace {

// Unicode's White_Space. PCRE2's \s has U+180E as well.
constexpr std::string_view space = R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

}  // namespace

std::string to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const std::string_view pair = pattern.substr(i, 2);
    if (pair == "\\s" || (pair == "\\S" && !in_class)) {
      out += in_class ? std::string(space) : fmt::format("[{}{}]", pair == "\\S" ? "^" : "", space);
      ++i;
    } else if (c == '\\') {
      out += pair;
      ++i;
    } else if (in_class && (c == '[' || pair == "&&")) {
      throw Error(ErrorKind::model, fmt::format("the pre-tokeniser's expression '{}' has a class inside a class", pattern),
                  "plain classes");
    } else {
      if (c == '[') {
        in_class = true;
        if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += c, ++i;
        out += pattern[i];
        continue;
      }
      if (c == ']') in_class = false;
      out += c;
    }
  }
  return out;
}

}  // namespace lmkit
