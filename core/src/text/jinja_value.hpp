// SPDX-License-Identifier: Apache-2.0
//
// The values of the template language: Python's, as far as chat templates see them. Immutable, but for a namespace.
//
// A Text knows which of its bytes a stranger wrote (messages, tools), so that the rendered prompt can say where a
// special token's spelling is only text. Operations keep that knowledge; where it is hard to keep (letter case, JSON),
// the whole result counts as foreign.
#pragma once

#include <lmkit/text/tokenizer.hpp>

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lmkit::jinja {

inline constexpr std::size_t max_text = std::size_t{16} << 20;
inline constexpr std::size_t max_items = std::size_t{1} << 20;

// What is wrong with a template or its use of a value; the evaluator adds the line.
struct Problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Text {
  std::string bytes;
  std::vector<TextRange> foreign;  // sorted, disjoint

  Text() = default;
  explicit Text(std::string_view text, bool is_foreign = false);
  Text& operator+=(const Text& other);
  Text substr(std::size_t begin, std::size_t count = std::string::npos) const;
  Text characters(std::size_t begin, std::size_t end) const;  // from one character's number to another's
  Text with_bytes(std::string changed) const;  // foreign as a whole if any of this is
};

class Value;
struct Expression;
struct Macro;

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
  std::size_t weight = 0;
};
using Members = std::vector<std::pair<Text, Value>>;  // in order of insertion
struct Dict {
  Members members;
  int depth = 1;
  std::size_t weight = 0;
};
struct Namespace {
  Members members;
};
struct Loop;

struct Undefined {
  std::string name;
};
struct None {};
struct Function {
  std::string_view name;  // a built-in one
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
                               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Loop>, const Macro*,
                               Function>;

  Value() : value_(None{}) {}
  explicit Value(Undefined undefined) : value_(std::move(undefined)) {}
  explicit Value(bool value) : value_(value) {}
  explicit Value(std::int64_t value) : value_(value) {}
  explicit Value(double value) : value_(value) {}
  explicit Value(Text value) : value_(std::make_shared<const Text>(std::move(value))) {}
  explicit Value(std::shared_ptr<Namespace> value) : value_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Loop> value) : value_(std::move(value)) {}
  explicit Value(const Macro* value) : value_(value) {}
  explicit Value(Function value) : value_(value) {}
  static Value list(std::vector<Value> items, bool tuple = false);  // throws Problem beyond the limits below
  static Value dict(Members members);

  template <class T>
  bool is() const noexcept {
    return std::holds_alternative<T>(value_);
  }
  bool is_undefined() const noexcept { return is<Undefined>(); }
  bool is_none() const noexcept { return is<None>(); }
  const Text* text() const noexcept { return pointer<const Text>(); }
  const List* list() const noexcept { return pointer<const List>(); }
  const Dict* dict() const noexcept { return pointer<const Dict>(); }
  Namespace* name_space() const noexcept { return pointer<Namespace>(); }
  const Loop* loop() const noexcept { return pointer<const Loop>(); }
  const Macro* macro() const noexcept { return is<const Macro*>() ? std::get<const Macro*>(value_) : nullptr; }
  const Function* function() const noexcept { return std::get_if<Function>(&value_); }
  bool is_number() const noexcept { return is<bool>() || is<std::int64_t>() || is<double>(); }
  bool is_integer() const noexcept { return is<bool>() || is<std::int64_t>(); }
  std::int64_t integer() const;  // of a bool or integer
  double number() const;         // of any number
  const Variant& variant() const noexcept { return value_; }

  bool truth() const noexcept;
  int depth() const noexcept;
  std::size_t weight() const noexcept;  // bytes that reading all of it touches, about; texts shared inside count each time
  std::string_view type() const noexcept;  // its name, for messages

 private:
  template <class T>
  T* pointer() const noexcept {
    const auto* held = std::get_if<std::shared_ptr<T>>(&value_);
    return held ? held->get() : nullptr;
  }
  Variant value_;
};

// The state of a for loop, as the template's `loop` sees it.
struct Loop {
  std::vector<Value> items;
  std::size_t index = 0;
  int depth = 1;
};

const Value* find(const Members& members, std::string_view key) noexcept;
// As text.find(sought, from), but in time proportional to their sum.
std::size_t position_of(std::string_view text, std::string_view sought, std::size_t from = 0) noexcept;
bool equal(const Value& a, const Value& b);
bool less(const Value& a, const Value& b);              // throws Problem if they have no order
bool contains(const Value& container, const Value& item);
std::vector<Value> elements(const Value& value);        // what a for loop runs over; throws Problem
std::size_t length(const Value& value);                 // characters of a text; throws Problem

Text to_text(const Value& value);  // Python's str()
struct JsonStyle {
  int indent = -1;  // -1: one line
  bool sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(const Value& value, const JsonStyle& style);
Value from_json(const boost::json::value& value);  // every string in it is foreign

// Python's str.isspace
bool is_python_space(char32_t c) noexcept;

}  // namespace lmkit::jinja
