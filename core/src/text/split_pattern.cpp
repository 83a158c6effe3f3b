// SPDX-License-Identifier: Apache-2.0
#include "split_pattern.hpp"

#include <fmt/format.h>
#include <lmkit/base/error.hpp>

#include "unicode_since_14.hpp"

namespace lmkit {
namespace {

// Unicode's White_Space. PCRE2's \s has U+180E as well.
constexpr std::string_view space = R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// The characters that PCRE2 is too old to know in the category of \p{category}.
std::string newcomers(std::string_view category) {
  namespace since_14 = unicode_since_14;
  using Category = std::pair<std::string_view, std::string_view>;
  for (const auto& [name, ranges] : {Category{"Lu", since_14::Lu}, {"Ll", since_14::Ll}, {"Lm", since_14::Lm}, {"Lo", since_14::Lo},
                                     {"M", since_14::M}, {"N", since_14::N}, {"P", since_14::P}, {"S", since_14::S}})
    if (name == category) return std::string(ranges);
  return category == "L" ? newcomers("Lu") + newcomers("Ll") + newcomers("Lm") + newcomers("Lo") : std::string();
}

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
    } else if (const std::size_t brace = pattern.find('}', i); pattern.substr(i, 3) == "\\p{" && brace != std::string_view::npos) {
      const std::string members = std::string(pattern.substr(i, brace + 1 - i)) + newcomers(pattern.substr(i + 3, brace - i - 3));
      out += in_class ? members : "[" + members + "]";
      i = brace;
    } else if (pair == "\\h" || pair == "\\H" || pair == "\\C") {  // hexadecimal digits and control characters there
      throw Error(ErrorKind::model, fmt::format("the pre-tokeniser's expression '{}' has {}", pattern, pair), "escapes of one meaning, such as \\s and \\p{L}");
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
