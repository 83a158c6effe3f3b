// SPDX-License-Identifier: Apache-2.0
//
// A parsed template: statements and expressions, and the parser's interface.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jinja_value.hpp"

namespace lmkit::jinja {

enum class ExpressionKind {
  literal,      // value
  name,         // name
  list,         // parts
  tuple,        // parts
  dict,         // parts: key, value, key, value, …
  attribute,    // parts[0].name
  index,        // parts[0][parts[1]]
  slice,        // parts[0][parts[1]:parts[2]:parts[3]], each of the last three may be null
  call,         // parts[0](parts[1]…, arguments)
  filter,       // parts[0] | name(parts[1]…, arguments); parts[0] is null in a filter block
  test,         // parts[0] is name(parts[1]…)
  unary,        // name: - + not
  binary,       // name: + - * / // % ** ~
  logical,      // name: and or
  comparison,   // parts[0] operators[0] parts[1] operators[1] parts[2] …
  conditional,  // parts[0] if parts[1] else parts[2]; the last may be null
};

using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  ExpressionKind kind;
  int line;
  std::string name;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> arguments;  // by name
  std::vector<std::string> operators;
  Value value;
  int depth = 1;
};

enum class StatementKind {
  data,      // text
  print,     // expression
  branch,    // if expression: body, else: otherwise
  loop,      // for target in expression if condition: body, else: otherwise
  set,       // target = expression
  capture,   // target = what body writes, through the filters of expression (if any)
  macro,     // macro
  filtered,  // what body writes, through the filters of expression
  break_loop,
  continue_loop,
};

struct Statement;
using Body = std::vector<Statement>;

struct Macro {
  std::string name;
  struct Parameter {
    std::string name;
    ExpressionPtr otherwise;  // null: undefined
  };
  std::vector<Parameter> parameters;
  Body body;
};

struct Statement {
  StatementKind kind;
  int line;
  Text text;
  ExpressionPtr target, expression, condition;
  Body body, otherwise;
  std::unique_ptr<Macro> macro;
};

// Throws Error(model), also where the template nests deeper than any sensible one.
Body parse(std::string_view source);

}  // namespace lmkit::jinja
