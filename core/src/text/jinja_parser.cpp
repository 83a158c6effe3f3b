// SPDX-License-Identifier: Apache-2.0
//
// Recursive descent in Jinja's own order of precedence. Recursion is counted, so hostile nesting ends in an Error.
#include <fmt/format.h>
#include <lmkit/base/error.hpp>

#include <algorithm>
#include <charconv>

#include "jinja_ast.hpp"
#include "jinja_lexer.hpp"

namespace lmkit::jinja {
namespace {

constexpr int max_nesting = 100;  // of brackets, and of blocks
constexpr int max_depth = 250;    // of an expression's tree, which a chain of operators deepens too

using Kind = ExpressionKind;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(lex(source)) {}

  Body run() {
    Body body = parse_body({});
    return body;
  }

 private:
  struct Nested {
    explicit Nested(Parser& p) : parser(p) {
      if (++parser.nesting_ > max_nesting) fail(parser.line(), "nested too deeply");
    }
    ~Nested() { --parser.nesting_; }
    Nested(const Nested&) = delete;
    Parser& parser;
  };

  // --- tokens ---
  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  int line() const { return peek().line; }
  bool at(TokenType type, std::string_view text, std::size_t ahead = 0) const { return peek(ahead).type == type && peek(ahead).text == text; }
  bool at_symbol(std::string_view text) const { return at(TokenType::symbol, text); }
  bool at_name(std::string_view text) const { return at(TokenType::name, text); }
  bool accept(TokenType type, std::string_view text) {
    const bool found = at(type, text);
    at_ += found;
    return found;
  }
  bool accept_symbol(std::string_view text) { return accept(TokenType::symbol, text); }
  bool accept_name(std::string_view text) { return accept(TokenType::name, text); }

  [[noreturn]] void unexpected(std::string_view expected) const {
    const Token& token = peek();
    const bool shown = !token.text.empty() && token.type != TokenType::data;
    fail(token.line, fmt::format("found {}, expected {}", shown ? "'" + token.text + "'" : "the end of a tag or text", expected));
  }
  void expect_symbol(std::string_view text) {
    if (!accept_symbol(text)) unexpected(fmt::format("'{}'", text));
  }
  void expect(TokenType type, std::string_view what) {
    if (peek().type != type) unexpected(what);
    ++at_;
  }
  std::string expect_name() {
    if (peek().type != TokenType::name) unexpected("a name");
    return tokens_[at_++].text;
  }

  // --- statements ---
  Body parse_body(std::initializer_list<std::string_view> ends) {  // stops at {% of one of the ends, or at the end of all
    const Nested nested(*this);
    Body body;
    for (;;) {
      switch (peek().type) {
        case TokenType::end:
          if (ends.size()) fail(line(), fmt::format("'{}' is missing", *(ends.end() - 1)));
          return body;
        case TokenType::data:
          body.push_back(statement(StatementKind::data));
          body.back().text = Text(tokens_[at_++].text);
          break;
        case TokenType::print_begin:
          body.push_back(statement(StatementKind::print));
          ++at_;
          body.back().expression = parse_tuple();
          expect(TokenType::print_end, "'}}'");
          break;
        default:
          if (std::ranges::any_of(ends, [&](std::string_view name) { return at(TokenType::name, name, 1); })) return body;
          parse_block(body);
      }
    }
  }

  Statement statement(StatementKind kind) const { return {kind, line(), {}, {}, {}, {}, {}, {}, {}}; }
  void end_tag() { expect(TokenType::block_end, "'%}'"); }
  void end_block(std::string_view name) {
    ++at_;  // {%
    if (!accept_name(name)) unexpected(name);
    if (name == "endmacro" && peek().type == TokenType::name) ++at_;
    end_tag();
  }

  void parse_block(Body& body) {
    ++at_;  // {%
    Statement made = statement(StatementKind::data);
    const std::string name = expect_name();
    if (name == "for") {
      parse_for(made);
    } else if (name == "if") {
      parse_if(made);
    } else if (name == "set") {
      parse_set(made);
    } else if (name == "macro") {
      parse_macro(made);
    } else if (name == "filter") {
      made.kind = StatementKind::filtered;
      made.expression = parse_filters(nullptr, true);
      end_tag();
      made.body = parse_body({"endfilter"});
      end_block("endfilter");
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) fail(made.line, fmt::format("'{}' outside a loop", name));
      made.kind = name == "break" ? StatementKind::break_loop : StatementKind::continue_loop;
      end_tag();
    } else if (name == "generation") {  // marks the assistant's part for training; writes what is inside
      end_tag();
      Body inner = parse_body({"endgeneration"});
      end_block("endgeneration");
      std::ranges::move(inner, std::back_inserter(body));
      return;
    } else {
      fail(made.line, fmt::format("'{}' is not a tag known here", name));
    }
    body.push_back(std::move(made));
  }

  void parse_for(Statement& made) {
    made.kind = StatementKind::loop;
    made.target = parse_target();
    if (!accept_name("in")) unexpected("'in'");
    made.expression = parse_tuple(false);
    if (accept_name("if")) made.condition = parse_expression();
    if (at_name("recursive")) fail(line(), "recursive loops are not supported");
    end_tag();
    ++loops_;
    made.body = parse_body({"else", "endfor"});
    --loops_;
    if (at(TokenType::name, "else", 1)) {
      at_ += 2;
      end_tag();
      made.otherwise = parse_body({"endfor"});
    }
    end_block("endfor");
  }

  // elif becomes an if that is all of the else, without recursion: a long chain may not use up the stack.
  void parse_if(Statement& first) {
    std::vector<Statement> chain;
    Statement* current = &first;
    for (;;) {
      current->kind = StatementKind::branch;
      current->expression = parse_expression();
      end_tag();
      current->body = parse_body({"elif", "else", "endif"});
      if (!at(TokenType::name, "elif", 1)) break;
      ++at_;
      chain.push_back(statement(StatementKind::branch));
      ++at_;
      current = &chain.back();
    }
    if (at(TokenType::name, "else", 1)) {
      at_ += 2;
      end_tag();
      current->otherwise = parse_body({"endif"});
    }
    end_block("endif");
    if (chain.size() > static_cast<std::size_t>(max_nesting)) fail(first.line, "too many branches");
    for (; !chain.empty(); chain.pop_back()) {
      Statement& before = chain.size() > 1 ? chain[chain.size() - 2] : first;
      before.otherwise.push_back(std::move(chain.back()));
    }
  }

  void parse_set(Statement& made) {
    made.target = parse_target();
    if (accept_symbol("=")) {
      made.kind = StatementKind::set;
      made.expression = parse_tuple();
      return end_tag();
    }
    made.kind = StatementKind::capture;
    if (at_symbol("|")) made.expression = parse_filters(nullptr, false);
    end_tag();
    made.body = parse_body({"endset"});
    end_block("endset");
  }

  void parse_macro(Statement& made) {
    made.kind = StatementKind::macro;
    made.macro = std::make_unique<Macro>();
    made.macro->name = expect_name();
    expect_symbol("(");
    while (!accept_symbol(")")) {
      Macro::Parameter parameter{expect_name(), nullptr};
      if (accept_symbol("=")) parameter.otherwise = parse_expression();
      made.macro->parameters.push_back(std::move(parameter));
      if (!at_symbol(")")) expect_symbol(",");
    }
    end_tag();
    const int outer_loops = std::exchange(loops_, 0);
    made.macro->body = parse_body({"endmacro"});
    loops_ = outer_loops;
    end_block("endmacro");
  }

  ExpressionPtr parse_target() {  // a, b, … or namespace.attribute
    ExpressionPtr first = parse_one_target();
    if (!at_symbol(",")) return first;
    std::vector<ExpressionPtr> parts;
    parts.push_back(std::move(first));
    while (accept_symbol(",") && peek().type == TokenType::name) parts.push_back(parse_one_target());
    return make(Kind::tuple, {}, std::move(parts));
  }

  ExpressionPtr parse_one_target() {
    if (accept_symbol("(")) {
      const Nested nested(*this);
      ExpressionPtr inner = parse_target();
      expect_symbol(")");
      return inner;
    }
    ExpressionPtr name = make(Kind::name, expect_name());
    if (!accept_symbol(".")) return name;
    return make(Kind::attribute, expect_name(), std::move(name));
  }

  // --- expressions, loosest first ---
  template <class... Parts>
    requires(std::same_as<Parts, ExpressionPtr> && ...)
  ExpressionPtr make(Kind kind, std::string name, Parts... parts) {
    std::vector<ExpressionPtr> list;
    (list.push_back(std::move(parts)), ...);
    return make(kind, std::move(name), std::move(list));
  }

  ExpressionPtr make(Kind kind, std::string name, std::vector<ExpressionPtr> parts) {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->line = line();
    made->name = std::move(name);
    made->parts = std::move(parts);
    for (const ExpressionPtr& part : made->parts) deepen(*made, part);
    return made;
  }

  void deepen(Expression& expression, const ExpressionPtr& part) const {
    if (part) expression.depth = std::max(expression.depth, part->depth + 1);
    if (expression.depth > max_depth) fail(line(), "an expression is too long or nested too deeply");
  }

  ExpressionPtr literal(Value value) {
    ExpressionPtr made = make(Kind::literal, {});
    made->value = std::move(value);
    return made;
  }

  ExpressionPtr parse_tuple(bool conditional = true) {
    const auto part = [&] { return conditional ? parse_expression() : parse_or(); };
    ExpressionPtr first = part();
    if (!at_symbol(",")) return first;
    std::vector<ExpressionPtr> parts;
    parts.push_back(std::move(first));
    while (accept_symbol(",") && peek().type != TokenType::block_end && peek().type != TokenType::print_end && !at_symbol(")"))
      parts.push_back(part());
    return make(Kind::tuple, {}, std::move(parts));
  }

  ExpressionPtr parse_expression() {
    const Nested nested(*this);
    ExpressionPtr value = parse_or();
    while (accept_name("if")) {
      ExpressionPtr condition = parse_or();
      ExpressionPtr otherwise = accept_name("else") ? parse_expression() : nullptr;
      value = make(Kind::conditional, {}, std::move(value), std::move(condition), std::move(otherwise));
    }
    return value;
  }

  ExpressionPtr parse_or() {
    ExpressionPtr left = parse_and();
    while (accept_name("or")) left = make(Kind::logical, "or", std::move(left), parse_and());
    return left;
  }

  ExpressionPtr parse_and() {
    ExpressionPtr left = parse_not();
    while (accept_name("and")) left = make(Kind::logical, "and", std::move(left), parse_not());
    return left;
  }

  ExpressionPtr parse_not() {
    const Nested nested(*this);
    if (accept_name("not")) return make(Kind::unary, "not", parse_not());
    return parse_comparison();
  }

  ExpressionPtr parse_comparison() {
    ExpressionPtr first = parse_sum();
    std::vector<ExpressionPtr> parts;
    std::vector<std::string> operators;
    for (;;) {
      const bool is_not_in = at_name("not") && at(TokenType::name, "in", 1);
      constexpr std::string_view symbols[] = {"==", "!=", "<", "<=", ">", ">="};
      const bool is_symbol = peek().type == TokenType::symbol && std::ranges::find(symbols, peek().text) != std::end(symbols);
      if (!is_not_in && !is_symbol && !at_name("in")) break;
      operators.push_back(is_not_in ? "not in" : peek().text);
      at_ += is_not_in ? 2 : 1;
      parts.push_back(parse_sum());
    }
    if (operators.empty()) return first;
    parts.insert(parts.begin(), std::move(first));
    ExpressionPtr made = make(Kind::comparison, {}, std::move(parts));
    made->operators = std::move(operators);
    return made;
  }

  template <class Next>
  ExpressionPtr parse_chain(std::initializer_list<std::string_view> symbols, Next&& next) {
    ExpressionPtr left = next();
    while (peek().type == TokenType::symbol && std::ranges::find(symbols, peek().text) != symbols.end()) {
      std::string symbol = tokens_[at_++].text;
      ExpressionPtr right = next();
      left = make(Kind::binary, std::move(symbol), std::move(left), std::move(right));
    }
    return left;
  }
  ExpressionPtr parse_sum() {
    return parse_chain({"+", "-"}, [&] { return parse_concatenation(); });
  }
  ExpressionPtr parse_concatenation() {
    return parse_chain({"~"}, [&] { return parse_product(); });
  }
  ExpressionPtr parse_product() {
    return parse_chain({"*", "/", "//", "%"}, [&] { return parse_power(); });
  }
  ExpressionPtr parse_power() {
    return parse_chain({"**"}, [&] { return parse_unary(true); });
  }

  ExpressionPtr parse_unary(bool with_filters) {
    const Nested nested(*this);
    ExpressionPtr value;
    if (at_symbol("-") || at_symbol("+")) {
      std::string sign = tokens_[at_++].text;
      value = make(Kind::unary, std::move(sign), parse_unary(false));
    } else {
      value = parse_postfix(parse_primary());
    }
    return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
  }

  ExpressionPtr parse_primary() {
    const Token& token = peek();
    switch (token.type) {
      case TokenType::name: ++at_; return named_value(token.text);
      case TokenType::integer: ++at_; return literal(Value(number<std::int64_t>(token)));
      case TokenType::floating: ++at_; return literal(Value(number<double>(token)));
      case TokenType::string: {
        std::string text;  // strings side by side are one
        while (peek().type == TokenType::string) text += tokens_[at_++].text;
        return literal(Value(Text(text)));
      }
      default: break;
    }
    if (accept_symbol("(")) {
      if (accept_symbol(")")) return make(Kind::tuple, {});
      ExpressionPtr inner = parse_tuple();
      expect_symbol(")");
      return inner;
    }
    if (accept_symbol("[")) return make(Kind::list, {}, parse_items("]"));
    if (accept_symbol("{")) return make(Kind::dict, {}, parse_items("}"));
    unexpected("a value");
  }

  ExpressionPtr named_value(const std::string& name) {
    if (name == "true" || name == "True") return literal(Value(true));
    if (name == "false" || name == "False") return literal(Value(false));
    if (name == "none" || name == "None") return literal(Value());
    return make(Kind::name, name);
  }

  template <class Number>
  Number number(const Token& token) const {
    Number value{};
    const auto [end, error] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
    if (error != std::errc{}) fail(token.line, fmt::format("the number {} is out of range", token.text));
    return value;
  }

  std::vector<ExpressionPtr> parse_items(std::string_view close) {  // for "}", keys and values by turns
    std::vector<ExpressionPtr> items;
    while (!accept_symbol(close)) {
      items.push_back(parse_expression());
      if (close == "}") {
        expect_symbol(":");
        items.push_back(parse_expression());
      }
      if (!at_symbol(close)) expect_symbol(",");
    }
    return items;
  }

  ExpressionPtr parse_postfix(ExpressionPtr value) {
    for (;;) {
      if (accept_symbol(".")) {
        if (peek().type == TokenType::integer) {
          ExpressionPtr index = parse_primary();
          value = make(Kind::index, {}, std::move(value), std::move(index));
        } else {
          value = make(Kind::attribute, expect_name(), std::move(value));
        }
      } else if (accept_symbol("[")) {
        value = parse_subscript(std::move(value));
      } else if (at_symbol("(")) {
        value = make(Kind::call, {}, std::move(value));
        parse_arguments(*value);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr value) {
    ExpressionPtr bounds[3];
    int colons = 0;
    for (; !at_symbol("]"); ) {
      if (accept_symbol(":")) {
        if (++colons > 2) unexpected("']'");
      } else {
        if (bounds[colons]) unexpected("']'");
        bounds[colons] = parse_expression();
      }
    }
    expect_symbol("]");
    if (colons) return make(Kind::slice, {}, std::move(value), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2]));
    if (!bounds[0]) unexpected("an index");
    return make(Kind::index, {}, std::move(value), std::move(bounds[0]));
  }

  void parse_arguments(Expression& call) {
    expect_symbol("(");
    while (!accept_symbol(")")) {
      if (at_symbol("*") || at_symbol("**")) fail(line(), "arguments cannot be unpacked");
      if (peek().type == TokenType::name && at(TokenType::symbol, "=", 1)) {
        std::string name = expect_name();
        ++at_;
        call.arguments.emplace_back(std::move(name), parse_expression());
        deepen(call, call.arguments.back().second);
      } else {
        if (!call.arguments.empty()) fail(line(), "an argument without name follows one with a name");
        call.parts.push_back(parse_expression());
        deepen(call, call.parts.back());
      }
      if (!at_symbol(")")) expect_symbol(",");
    }
  }

  ExpressionPtr parse_filters_and_tests(ExpressionPtr value) {
    for (;;) {
      if (at_symbol("|")) {
        value = parse_filters(std::move(value), false);
      } else if (accept_name("is")) {
        value = parse_test(std::move(value));
      } else if (at_symbol("(")) {
        value = make(Kind::call, {}, std::move(value));
        parse_arguments(*value);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_filters(ExpressionPtr value, bool first_has_no_bar) {
    while (first_has_no_bar || accept_symbol("|")) {
      first_has_no_bar = false;
      value = make(Kind::filter, expect_name(), std::move(value));
      if (at_symbol("(")) parse_arguments(*value);
    }
    return value;
  }

  ExpressionPtr parse_test(ExpressionPtr value) {
    const bool negated = accept_name("not");
    ExpressionPtr test = make(Kind::test, expect_name(), std::move(value));
    const Token& next = peek();
    const bool is_value = next.type == TokenType::string || next.type == TokenType::integer || next.type == TokenType::floating;
    const bool is_word = next.type == TokenType::name && next.text != "else" && next.text != "or" && next.text != "and" &&
                         next.text != "if" && next.text != "is" && next.text != "in" && next.text != "not";
    if (at_symbol("(")) {
      parse_arguments(*test);
    } else if (is_value || is_word || at_symbol("[") || at_symbol("{")) {
      test->parts.push_back(parse_postfix(parse_primary()));
      deepen(*test, test->parts.back());
    }
    return negated ? make(Kind::unary, "not", std::move(test)) : std::move(test);
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace lmkit::jinja
