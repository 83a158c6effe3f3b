// SPDX-License-Identifier: Apache-2.0
//
// A template's text -> tokens, with Jinja's white-space control and, as transformers sets them, trim_blocks (the line
// end after a block tag goes) and lstrip_blocks (so do blanks between a line's start and a block tag).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lmkit::jinja {

enum class TokenType { data, block_begin, block_end, print_begin, print_end, name, string, integer, floating, symbol, end };

struct Token {
  TokenType type = TokenType::end;
  std::string text;  // strings: unescaped
  int line = 1;
};

std::vector<Token> lex(std::string_view source);  // throws Error(model); ends in TokenType::end

// Error(model) that names the line.
[[noreturn]] void fail(int line, std::string_view problem);

}  // namespace lmkit::jinja
