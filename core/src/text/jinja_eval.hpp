// SPDX-License-Identifier: Apache-2.0
//
// Evaluator: runs a parsed template. Work, output and recursion are bounded, whatever the template does.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "jinja_ast.hpp"

namespace lmkit::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at this place or of this name; null if it was not given.
  const Value* find(std::size_t place, std::string_view name) const;
  Value get(std::size_t place, std::string_view name, Value otherwise) const;
};

using Scope = std::unordered_map<std::string, Value>;

class Evaluator {
 public:
  Evaluator(Scope globals, std::time_t now);

  // Throws Error(model) with the line; what raise_exception says as Error(runtime).
  Text run(const Body& body);

  // For the built-ins. Throw Problem.
  void spend(std::size_t bytes_or_items);  // work, against the limit
  Value filter(std::string_view name, const Value& value, const Arguments& arguments);
  bool test(std::string_view name, const Value& value, const Arguments& arguments);
  std::time_t now() const noexcept { return now_; }

 private:
  enum class Flow { next, break_loop, continue_loop };
  class Deeper;

  Flow execute(const Body& body, Text& out);
  Flow execute(const Statement& statement, Text& out);
  Flow execute_loop(const Statement& statement, Text& out);
  void assign(const Expression& target, const Value& value);
  Text captured(const Body& body, const Expression* filters);

  Value evaluate(const Expression& expression);
  Value evaluate_kind(const Expression& expression);
  Value evaluate_binary(const std::string& symbol, const Value& left, const Value& right);
  Value evaluate_comparison(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value apply_filters(const Expression& expression, const Value* piped);
  Arguments evaluate_arguments(const Expression& call, std::size_t first);
  Value call_macro(const Macro& macro, const Arguments& arguments);
  Value lookup(const std::string& name) const;

  std::vector<Scope> scopes_;   // [0]: globals
  std::size_t scope_base_ = 0;  // a macro sees the globals and the scopes from here on
  std::time_t now_;
  std::size_t work_ = 0;
  int depth_ = 0;
  int line_ = 1;
};

// jinja_builtins.cpp
Value attribute(const Value& value, std::string_view name);
Value item(const Value& value, const Value& key);
Value call_method(Evaluator& evaluator, const Value& value, std::string_view name, const Arguments& arguments);
Value call_function(Evaluator& evaluator, std::string_view name, const Arguments& arguments);
std::vector<std::string_view> function_names();

// What raise_exception throws.
struct Raised : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace lmkit::jinja
