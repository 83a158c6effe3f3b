// SPDX-License-Identifier: Apache-2.0
#include "jinja_lexer.hpp"

#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>

namespace lmkit::jinja {
namespace {

constexpr std::string_view spaces = " \t\n\r\v\f";

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_name_start(char c) noexcept { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = next_tag(at_);
      const bool is_print = source_.substr(tag, 2) == "{{";
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      add_data(source_.substr(at_, tag - at_), tag < source_.size() && sign == '-', tag < source_.size() && !is_print && sign != '+');
      advance_to(tag);
      if (at_ == source_.size()) break;
      advance_to(std::min(tag + 2 + (sign == '-' || (sign == '+' && !is_print)), source_.size()));
      if (source_.substr(tag, 2) == "{#") {
        skip_comment();
      } else if (is_print) {
        read_tag(TokenType::print_begin, TokenType::print_end, "}}");
      } else {
        read_tag(TokenType::block_begin, TokenType::block_end, "%}");
        if (is_raw_tag()) read_raw();
      }
    }
    add(TokenType::end, "");
    return std::move(tokens_);
  }

 private:
  void add(TokenType type, std::string text) { tokens_.push_back({type, std::move(text), line_}); }

  void advance_to(std::size_t at) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_), source_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    at_ = at;
  }

  std::size_t next_tag(std::size_t from) const {
    for (std::size_t at = source_.find('{', from); at != source_.npos; at = source_.find('{', at + 1)) {
      const char c = at + 1 < source_.size() ? source_[at + 1] : ' ';
      if (c == '{' || c == '%' || c == '#') return at;
    }
    return source_.size();
  }

  void add_data(std::string_view data, bool strip, bool strip_line) {
    if (strip) {
      data = data.substr(0, data.find_last_not_of(spaces) + 1);
    } else if (strip_line) {
      const std::size_t line = data.rfind('\n') + 1;  // 0 if there is none
      if ((line > 0 || line_start_) && data.find_first_not_of(" \t\v\f", line) == data.npos) data = data.substr(0, line);
    }
    if (!data.empty()) add(TokenType::data, std::string(data));
  }

  // After a tag's end: white space goes after '-', the first line end after a block (but raw) or comment unless '+'.
  void after_tag(char sign, bool is_print) {
    line_start_ = false;
    if (sign == '-') {
      const std::size_t next = source_.find_first_not_of(spaces, at_);
      const std::size_t to = next == source_.npos ? source_.size() : next;
      line_start_ = to > at_ && source_[to - 1] == '\n';
      advance_to(to);
    } else if (!is_print && sign != '+' && source_.substr(at_, 1) == "\n") {
      advance_to(at_ + 1);
      line_start_ = true;
    }
  }

  void skip_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == source_.npos) fail(line_, "a comment does not end");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    advance_to(end + 2);
    after_tag(sign, false);
  }

  void read_tag(TokenType begin, TokenType end_type, std::string_view end) {
    const int first_line = line_;
    add(begin, "");
    int open = 0;  // brackets: "}}" may end a dict before it ends a tag
    for (;;) {
      const std::size_t next = source_.find_first_not_of(spaces, at_);
      if (next == source_.npos) fail(first_line, "a tag does not end");
      advance_to(next);
      const char c = source_[at_];
      const bool signed_end = (c == '-' || (c == '+' && end == "%}")) && source_.substr(at_ + 1, 2) == end;
      if (open == 0 && (signed_end || source_.substr(at_, 2) == end)) {
        add(end_type, "");
        advance_to(at_ + 2 + signed_end);
        return after_tag(signed_end ? c : ' ', end == "}}" || is_raw_tag());
      }
      if (is_name_start(c)) {
        read_name();
      } else if (is_digit(c)) {
        read_number();
      } else if (c == '"' || c == '\'') {
        read_string(c);
      } else {
        read_symbol(open);
      }
    }
  }

  void read_name() {
    const std::size_t begin = at_;
    while (at_ < source_.size() && (is_name_start(source_[at_]) || is_digit(source_[at_]))) ++at_;
    add(TokenType::name, std::string(source_.substr(begin, at_ - begin)));
  }

  void read_number() {
    const std::size_t begin = at_;
    const auto digits = [&] { while (at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_')) ++at_; };
    const auto digit_at = [&](std::size_t i) { return i < source_.size() && is_digit(source_[i]); };
    TokenType type = TokenType::integer;
    digits();
    if (source_.substr(at_, 1) == "." && digit_at(at_ + 1)) type = TokenType::floating, ++at_, digits();
    if (at_ < source_.size() && (source_[at_] | 0x20) == 'e') {
      const bool has_sign = at_ + 1 < source_.size() && (source_[at_ + 1] == '+' || source_[at_ + 1] == '-');
      if (digit_at(at_ + 1 + has_sign)) type = TokenType::floating, at_ += 1 + has_sign, digits();
    }
    std::string text(source_.substr(begin, at_ - begin));
    std::erase(text, '_');
    add(type, std::move(text));
  }

  void read_string(char quote) {
    const int first_line = line_;
    std::string text;
    std::size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\' || i + 1 == source_.size()) {
        text += source_[i];
        continue;
      }
      const char c = source_[++i];
      constexpr std::string_view letters = "ntrbfva0\\'\"", meanings("\n\t\r\b\f\v\a\0\\'\"", 11);
      const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (const std::size_t known = letters.find(c); known != letters.npos) {
        text += meanings[known];
      } else if (digits) {
        append_utf8(text, code_point(source_.substr(i + 1, digits), digits));
        i += digits;
      } else if (c != '\n') {  // a line's end may be escaped away
        text += '\\', text += c;
      }
    }
    if (i >= source_.size()) fail(first_line, "a string does not end");
    tokens_.push_back({TokenType::string, std::move(text), first_line});
    advance_to(i + 1);
  }

  char32_t code_point(std::string_view hex, std::size_t digits) const {
    char32_t value = 0;
    for (const char c : hex) {
      const int digit = is_digit(c) ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
      if (digit < 0) digits = 0;
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (hex.size() != digits || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) fail(line_, "a string has a bad escape");
    return value;
  }

  void read_symbol(int& open) {
    constexpr std::string_view two[] = {"**", "//", "==", "!=", "<=", ">="};
    constexpr std::string_view one = "+-*/%~<>=()[]{}.,:|";
    const std::string_view pair = source_.substr(at_, 2);
    const std::size_t length = std::ranges::find(two, pair) != std::end(two) ? 2 : 1;
    const char c = source_[at_];
    if (length == 1 && one.find(c) == one.npos) fail(line_, fmt::format("unexpected character 0x{:02x}", static_cast<unsigned char>(c)));
    if (c == '(' || c == '[' || c == '{') ++open;
    if (c == ')' || c == ']' || c == '}') --open;
    if (open < 0) fail(line_, fmt::format("'{}' closes nothing", c));
    add(TokenType::symbol, std::string(pair.substr(0, length)));
    at_ += length;
  }

  bool is_raw_tag() const {
    const std::size_t n = tokens_.size();
    return n >= 3 && tokens_[n - 3].type == TokenType::block_begin && tokens_[n - 2].text == "raw" && tokens_[n - 2].type == TokenType::name;
  }

  void read_raw() {
    tokens_.resize(tokens_.size() - 3);
    for (std::size_t tag = source_.find("{%", at_); tag != source_.npos; tag = source_.find("{%", tag + 2)) {
      const bool strip = source_.substr(tag + 2, 1) == "-";
      std::size_t name = source_.find_first_not_of(spaces, tag + 2 + strip);
      if (name == source_.npos || source_.substr(name, 6) != "endraw") continue;
      add_data(source_.substr(at_, tag - at_), strip, true);
      advance_to(name + 6);
      read_tag(TokenType::block_begin, TokenType::block_end, "%}");
      if (tokens_[tokens_.size() - 2].type != TokenType::block_begin) fail(line_, "endraw takes nothing");
      tokens_.resize(tokens_.size() - 2);
      return;
    }
    fail(line_, "a raw block does not end");
  }

  std::string_view source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the data at hand begins a line
  std::vector<Token> tokens_;
};

}  // namespace

void fail(int line, std::string_view problem) {
  throw Error(ErrorKind::model, fmt::format("the chat template, line {}: {}", line, problem));
}

std::vector<Token> lex(std::string_view source) { return Lexer(source).run(); }

}  // namespace lmkit::jinja
