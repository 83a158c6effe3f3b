// SPDX-License-Identifier: Apache-2.0
#include "jinja_eval.hpp"

#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>
#include <cmath>

#include "jinja_lexer.hpp"

namespace lmkit::jinja {
namespace {

constexpr int max_depth = 400;  // expressions, blocks and macros in one another; a frame takes well under 4 KiB
constexpr std::size_t max_work = 20'000'000;

std::int64_t floor_divide(std::int64_t a, std::int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Value integer_result(const std::string& symbol, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  bool overflow = false;
  if (symbol == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (symbol == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (symbol == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (symbol == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    out = 1;
    overflow = b > 63 && a != 0 && a != 1 && a != -1;
    for (std::int64_t i = overflow ? 0 : b > 64 ? 64 + b % 2 : b; i > 0 && !overflow; --i) overflow = __builtin_mul_overflow(out, a, &out);
  } else {
    if (b == 0) throw Problem("division by zero");
    overflow = a == INT64_MIN && b == -1;
    if (!overflow) out = symbol == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
  }
  if (overflow) throw Problem("an integer is out of range");
  return Value(out);
}

Value float_result(const std::string& symbol, double a, double b) {
  if (symbol == "+") return Value(a + b);
  if (symbol == "-") return Value(a - b);
  if (symbol == "*") return Value(a * b);
  if (symbol == "**") return Value(std::pow(a, b));
  if (b == 0) throw Problem("division by zero");
  if (symbol == "/") return Value(a / b);
  return Value(symbol == "//" ? std::floor(a / b) : a - std::floor(a / b) * b);
}

// What comparing costs: of two values no more than the lighter, or than all items of the one against the other.
std::size_t comparison_weight(const std::string& symbol, const Value& left, const Value& right) {
  if (!symbol.ends_with("in") || !right.list()) return std::min(left.weight(), right.weight());
  const std::size_t items = right.list()->items.size();
  return 16 * items + std::min(right.weight(), items * left.weight());
}

}  // namespace

const Value* Arguments::find(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  const auto found = std::ranges::find(named, name, [](const auto& entry) -> std::string_view { return entry.first; });
  return found == named.end() ? nullptr : &found->second;
}

Value Arguments::get(std::size_t place, std::string_view name, Value otherwise) const {
  const Value* found = find(place, name);
  return found ? *found : std::move(otherwise);
}

class Evaluator::Deeper {
 public:
  explicit Deeper(Evaluator& evaluator) : evaluator_(evaluator) {
    if (++evaluator_.depth_ > max_depth) throw Problem("nested too deeply");
  }
  ~Deeper() { --evaluator_.depth_; }
  Deeper(const Deeper&) = delete;

 private:
  Evaluator& evaluator_;
};

Evaluator::Evaluator(Scope globals, std::time_t now) : now_(now) {
  scopes_.push_back(std::move(globals));
  for (const std::string_view name : function_names()) scopes_[0].try_emplace(std::string(name), Function{name});
  scopes_.emplace_back();
  scope_base_ = 1;
}

Text Evaluator::run(const Body& body) {
  Text out;
  try {
    execute(body, out);
  } catch (const Problem& problem) {
    fail(line_, problem.what());
  } catch (const Raised& raised) {
    throw Error(ErrorKind::runtime, std::string("the chat template refuses the messages: ") + raised.what());
  }
  return out;
}

void Evaluator::spend(std::size_t amount) {
  work_ += 1 + amount / 16;
  if (work_ > max_work) throw Problem("the template takes too much work");
}

Evaluator::Flow Evaluator::execute(const Body& body, Text& out) {
  const Deeper deeper(*this);
  for (const Statement& statement : body) {
    line_ = statement.line;
    const Flow flow = execute(statement, out);
    if (flow != Flow::next) return flow;
    if (out.bytes.size() > max_text) throw Problem("the text gets too long");
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute(const Statement& statement, Text& out) {
  spend(statement.text.bytes.size());
  switch (statement.kind) {
    case StatementKind::data: out += statement.text; break;
    case StatementKind::print: {
      const Value value = evaluate(*statement.expression);
      spend(value.weight());
      out += to_text(value);
      break;
    }
    case StatementKind::branch: return execute(evaluate(*statement.expression).truth() ? statement.body : statement.otherwise, out);
    case StatementKind::loop: return execute_loop(statement, out);
    case StatementKind::set: assign(*statement.target, evaluate(*statement.expression)); break;
    case StatementKind::capture: assign(*statement.target, Value(captured(statement.body, statement.expression.get()))); break;
    case StatementKind::filtered: out += captured(statement.body, statement.expression.get()); break;
    case StatementKind::macro: scopes_.back()[statement.macro->name] = Value(statement.macro.get()); break;
    case StatementKind::break_loop: return Flow::break_loop;
    case StatementKind::continue_loop: return Flow::continue_loop;
  }
  return Flow::next;
}

Text Evaluator::captured(const Body& body, const Expression* filters) {
  Text out;
  scopes_.emplace_back();
  execute(body, out);
  scopes_.pop_back();
  if (!filters) return out;
  const Value piped(std::move(out));
  return to_text(apply_filters(*filters, &piped));
}

Evaluator::Flow Evaluator::execute_loop(const Statement& statement, Text& out) {
  std::vector<Value> items = elements(evaluate(*statement.expression));
  spend(items.size());
  scopes_.emplace_back();
  if (statement.condition) {
    std::erase_if(items, [&](const Value& item) {
      assign(*statement.target, item);
      return !evaluate(*statement.condition).truth();
    });
  }
  if (items.empty()) {
    scopes_.pop_back();
    return execute(statement.otherwise, out);
  }
  const auto loop = std::make_shared<Loop>();
  loop->depth = Value::list(items).depth();
  loop->items = std::move(items);
  for (; loop->index < loop->items.size(); ++loop->index) {
    spend(1);
    scopes_.back().clear();
    scopes_.back()["loop"] = Value(std::shared_ptr<const Loop>(loop));
    assign(*statement.target, loop->items[loop->index]);
    if (execute(statement.body, out) == Flow::break_loop) break;
  }
  scopes_.pop_back();
  return Flow::next;
}

void Evaluator::assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::name) {
    scopes_.back()[target.name] = value;
  } else if (target.kind == ExpressionKind::attribute) {
    Namespace* space = nullptr;
    const Value held = evaluate(*target.parts[0]);
    if (!(space = held.name_space())) throw Problem(fmt::format("an attribute of {} cannot be set", held.type()));
    Value::list({value});  // checks that it may be put into another
    for (auto& [name, member] : space->members)
      if (name.bytes == target.name) return void(member = value);
    space->members.emplace_back(Text(target.name), value);
  } else {
    const std::vector<Value> items = elements(value);
    if (items.size() != target.parts.size())
      throw Problem(fmt::format("{} values are unpacked into {} names", items.size(), target.parts.size()));
    for (std::size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i]);
  }
}

Value Evaluator::lookup(const std::string& name) const {
  for (std::size_t i = scopes_.size(); i-- > scope_base_;)
    if (const auto found = scopes_[i].find(name); found != scopes_[i].end()) return found->second;
  for (std::size_t i = std::min<std::size_t>(2, scope_base_); i-- > 0;)
    if (const auto found = scopes_[i].find(name); found != scopes_[i].end()) return found->second;
  return Value(Undefined{name});
}

Value Evaluator::evaluate(const Expression& expression) {
  const Deeper deeper(*this);
  line_ = expression.line;
  Value value = evaluate_kind(expression);
  const Text* text = value.text();
  spend(text ? text->bytes.size() : 0);
  if (text && text->bytes.size() > max_text) throw Problem("a text gets too long");
  return value;
}

Value Evaluator::evaluate_kind(const Expression& expression) {
  const auto part = [&](std::size_t i) { return evaluate(*expression.parts[i]); };
  switch (expression.kind) {
    case ExpressionKind::literal: return expression.value;
    case ExpressionKind::name: return lookup(expression.name);
    case ExpressionKind::list:
    case ExpressionKind::tuple: {
      std::vector<Value> items;
      for (const ExpressionPtr& item : expression.parts) items.push_back(evaluate(*item));
      return Value::list(std::move(items), expression.kind == ExpressionKind::tuple);
    }
    case ExpressionKind::dict: {
      Members members;
      for (std::size_t i = 0; i < expression.parts.size(); i += 2) members.emplace_back(to_text(part(i)), part(i + 1));
      return Value::dict(std::move(members));
    }
    case ExpressionKind::attribute: return attribute(part(0), expression.name);
    case ExpressionKind::index: {
      const Value value = part(0);
      if (value.text()) spend(value.weight());  // its characters are counted from the start
      if (value.dict()) spend(16 * value.dict()->members.size());
      return item(value, part(1));
    }
    case ExpressionKind::slice: return evaluate_slice(expression);
    case ExpressionKind::call: return evaluate_call(expression);
    case ExpressionKind::filter: return apply_filters(expression, nullptr);
    case ExpressionKind::test: {
      const Value value = part(0);
      return Value(test(expression.name, value, evaluate_arguments(expression, 1)));
    }
    case ExpressionKind::unary: {
      const Value value = part(0);
      if (expression.name == "not") return Value(!value.truth());
      return evaluate_binary(expression.name, Value(std::int64_t{0}), value);
    }
    case ExpressionKind::binary: {
      const Value left = part(0);
      return evaluate_binary(expression.name, left, part(1));
    }
    case ExpressionKind::logical: {
      const Value left = part(0);
      return left.truth() == (expression.name == "or") ? left : part(1);
    }
    case ExpressionKind::comparison: return evaluate_comparison(expression);
    case ExpressionKind::conditional:
      if (part(1).truth()) return part(0);
      return expression.parts[2] ? part(2) : Value(Undefined{"the value of an if without else"});
  }
  return Value();
}

Value Evaluator::evaluate_binary(const std::string& symbol, const Value& left, const Value& right) {
  if (symbol == "~") {
    spend(left.weight() + right.weight());
    Text out = to_text(left);
    out += to_text(right);
    return Value(std::move(out));
  }
  if (left.is_number() && right.is_number()) {
    if (left.is_integer() && right.is_integer() && symbol != "/") return integer_result(symbol, left.integer(), right.integer());
    return float_result(symbol, left.number(), right.number());
  }
  if (symbol == "+" && left.text() && right.text()) {
    Text out = *left.text();
    out += *right.text();
    return Value(std::move(out));
  }
  if (symbol == "+" && left.list() && right.list()) {
    std::vector<Value> items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    spend(16 * items.size());
    return Value::list(std::move(items), left.list()->tuple);
  }
  if (symbol == "*" && left.text() && right.is_integer()) {
    const auto times = static_cast<std::size_t>(std::max<std::int64_t>(right.integer(), 0));
    if (times && left.text()->bytes.size() > max_text / times) throw Problem("a text gets too long");
    Text out;
    for (std::size_t i = 0; i < times && !left.text()->bytes.empty(); ++i) out += *left.text();
    return Value(std::move(out));
  }
  for (const Value* operand : {&left, &right})
    if (const Undefined* undefined = std::get_if<Undefined>(&operand->variant()))
      throw Problem(fmt::format("'{}' is undefined", undefined->name));
  throw Problem(fmt::format("'{}' does not go with {} and {}", symbol, left.type(), right.type()));
}

Value Evaluator::evaluate_comparison(const Expression& expression) {
  Value left = evaluate(*expression.parts[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1]);
    const std::string& symbol = expression.operators[i];
    spend(comparison_weight(symbol, left, right));
    const bool holds = symbol == "=="       ? equal(left, right)
                       : symbol == "!="     ? !equal(left, right)
                       : symbol == "<"      ? less(left, right)
                       : symbol == ">"      ? less(right, left)
                       : symbol == "<="     ? less(left, right) || equal(left, right)
                       : symbol == ">="     ? less(right, left) || equal(left, right)
                       : symbol == "not in" ? !contains(right, left)
                                            : contains(right, left);
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::evaluate_slice(const Expression& expression) {
  const Value value = evaluate(*expression.parts[0]);
  std::int64_t bounds[3] = {0, 0, 1};
  bool given[3] = {};
  for (std::size_t i = 0; i < 3; ++i) {
    const Value bound = expression.parts[i + 1] ? evaluate(*expression.parts[i + 1]) : Value();
    if (bound.is_none()) continue;
    if (!bound.is_integer()) throw Problem(fmt::format("a slice's bound is {}", bound.type()));
    bounds[i] = bound.integer();
    given[i] = true;
  }
  const std::int64_t step = bounds[2];
  if (step == 0) throw Problem("a slice's step is 0");
  if (!value.text() && !value.list()) throw Problem(fmt::format("{} cannot be sliced", value.type()));

  const auto count = static_cast<std::int64_t>(length(value));
  const std::int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? count : count - 1;
  const auto clamp = [&](std::int64_t bound) { return std::clamp(bound < 0 ? bound + count : bound, lowest, highest); };
  const std::int64_t begin = given[0] ? clamp(bounds[0]) : step > 0 ? 0 : count - 1;
  const std::int64_t end = given[1] ? clamp(bounds[1]) : step > 0 ? count : -1;

  if (value.text() && step == 1) return Value(value.text()->characters(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::max(begin, end))));
  const std::vector<Value> items = elements(value);
  spend(16 * items.size());
  std::vector<Value> taken;
  const std::int64_t stride = std::clamp<std::int64_t>(step, -count - 1, count + 1);  // beyond, only the first counts
  for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += stride) taken.push_back(items[static_cast<std::size_t>(i)]);
  if (value.list()) return Value::list(std::move(taken), value.list()->tuple);
  Text out;
  for (const Value& character : taken) out += *character.text();
  return Value(std::move(out));
}

Arguments Evaluator::evaluate_arguments(const Expression& call, std::size_t first) {
  Arguments out;
  for (std::size_t i = first; i < call.parts.size(); ++i) {
    out.positional.push_back(evaluate(*call.parts[i]));
    if (out.positional.back().text()) spend(out.positional.back().weight());
  }
  for (const auto& [name, value] : call.arguments) out.named.emplace_back(name, evaluate(*value));
  return out;
}

Value Evaluator::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.parts[0];
  if (callee.kind == ExpressionKind::attribute) {
    const Value object = evaluate(*callee.parts[0]);
    const Value member = attribute(object, callee.name);
    const Arguments arguments = evaluate_arguments(expression, 1);
    if (member.macro()) return call_macro(*member.macro(), arguments);
    return call_method(*this, object, callee.name, arguments);
  }
  const Value function = evaluate(callee);
  const Arguments arguments = evaluate_arguments(expression, 1);
  if (function.macro()) return call_macro(*function.macro(), arguments);
  if (function.function()) return call_function(*this, function.function()->name, arguments);
  if (function.is_undefined()) throw Problem(fmt::format("'{}' is undefined", std::get<Undefined>(function.variant()).name));
  throw Problem(fmt::format("{} cannot be called", function.type()));
}

// piped: what flows into the first filter of a filter block.
Value Evaluator::apply_filters(const Expression& expression, const Value* piped) {
  const Expression* subject = expression.parts[0].get();
  const bool is_inner_filter = subject && piped && subject->kind == ExpressionKind::filter;
  const Value value = !subject ? *piped : is_inner_filter ? apply_filters(*subject, piped) : evaluate(*subject);
  return filter(expression.name, value, evaluate_arguments(expression, 1));
}

Value Evaluator::call_macro(const Macro& macro, const Arguments& arguments) {
  const Deeper deeper(*this);
  if (arguments.positional.size() > macro.parameters.size()) throw Problem(fmt::format("{} takes fewer arguments", macro.name));
  Scope scope;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Macro::Parameter& parameter = macro.parameters[i];
    const Value* given = arguments.find(i, parameter.name);
    scope[parameter.name] = given                 ? *given
                            : parameter.otherwise ? evaluate(*parameter.otherwise)
                                                  : Value(Undefined{parameter.name});
  }
  const std::size_t outer = std::exchange(scope_base_, scopes_.size());
  scopes_.push_back(std::move(scope));
  Text out;
  execute(macro.body, out);
  scopes_.pop_back();
  scope_base_ = outer;
  return Value(std::move(out));
}

}  // namespace lmkit::jinja
