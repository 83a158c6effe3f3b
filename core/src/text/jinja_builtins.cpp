// SPDX-License-Identifier: Apache-2.0
//
// What templates may call: filters, tests, methods and functions, each a row of a table.
#include <fmt/format.h>
#include <lmkit/text/utf8.hpp>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "jinja_eval.hpp"

namespace lmkit::jinja {
namespace {

constexpr std::int64_t max_range = 100'000;  // as Jinja's sandbox

const Text& want_text(const Value& value, std::string_view what) {
  if (const Text* text = value.text()) return *text;
  throw Problem(fmt::format("{} wants a string, not {}", what, value.type()));
}

std::int64_t want_integer(const Value& value, std::string_view what) {
  if (value.is_integer()) return value.integer();
  throw Problem(fmt::format("{} wants an integer, not {}", what, value.type()));
}

// --- texts ---

// Each character of `text`, changed.
std::string map_characters(std::string_view text, const std::function<char32_t(char32_t)>& change) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    append_utf8(out, change(c.value));
    at += c.length;
  }
  return out;
}

char32_t upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
char32_t lower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }

bool is_letter(char32_t c) {
  const int category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

// A letter is upper case where it begins a word, which follows a character that `parts` words; otherwise lower case.
template <class Parts>
Text capitalized(const Text& text, Parts&& parts) {
  bool first = true;
  return text.with_bytes(map_characters(text.bytes, [&](char32_t c) {
    const char32_t out = first ? upper(c) : lower(c);
    first = parts(c);
    return out;
  }));
}

bool never(char32_t) { return false; }
bool not_a_letter(char32_t c) { return !is_letter(c); }  // Python's str.title
bool begins_title(char32_t c) { return is_python_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos); }

// Python's strip: of white space, or of the characters given.
Text stripped(const Text& text, const Value& characters, bool left, bool right) {
  std::u32string set;
  if (characters.text()) map_characters(characters.text()->bytes, [&](char32_t c) { return set += c, c; });
  std::ranges::sort(set);
  set.erase(std::unique(set.begin(), set.end()), set.end());
  const auto goes = [&](char32_t c) { return characters.text() ? std::ranges::binary_search(set, c) : is_python_space(c); };
  const std::string& bytes = text.bytes;
  std::size_t begin = 0, end = bytes.size();
  while (left && begin < end) {
    const Utf8Char c = decode_utf8(bytes, begin);
    if (!goes(c.value)) break;
    begin += c.length;
  }
  while (right && end > begin) {
    std::size_t last = end - 1;
    while (last > begin && (bytes[last] & 0xC0) == 0x80) --last;
    if (!goes(decode_utf8(bytes, last).value)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

void check_items(const std::vector<Value>& items) {
  if (items.size() > max_items) throw Problem("a list gets too long");
}

std::vector<Value> split(const Text& text, const Value& separator, std::int64_t limit) {
  std::vector<Value> out;
  std::size_t at = 0;
  if (!separator.text()) {  // runs of white space, none at the ends
    for (;;) {
      const Text rest = stripped(text.substr(at), Value(), true, false);
      at = text.bytes.size() - rest.bytes.size();
      if (rest.bytes.empty()) return out;
      std::size_t end = at;
      while (end < text.bytes.size() && !is_python_space(decode_utf8(text.bytes, end).value)) end += decode_utf8(text.bytes, end).length;
      if (limit >= 0 && static_cast<std::int64_t>(out.size()) == limit) end = text.bytes.size();
      out.emplace_back(text.substr(at, end - at));
      check_items(out);
      at = end;
    }
  }
  const std::string& by = separator.text()->bytes;
  if (by.empty()) throw Problem("split by an empty string");
  while (limit < 0 || static_cast<std::int64_t>(out.size()) < limit) {
    const std::size_t end = position_of(text.bytes, by, at);
    if (end == std::string::npos) break;
    out.emplace_back(text.substr(at, end - at));
    check_items(out);
    at = end + by.size();
  }
  out.emplace_back(text.substr(at));
  return out;
}

std::vector<Value> split_from_right(Evaluator& evaluator, const Text& text, const Value& separator, std::int64_t limit) {
  if (limit < 0) return split(text, separator, -1);
  if (!separator.text() || separator.text()->bytes.empty()) throw Problem("rsplit with a limit wants a separator");
  const std::string& by = separator.text()->bytes;
  if (by.size() > 64) evaluator.spend(by.size() * text.bytes.size());  // rfind may look at so many bytes
  std::vector<Value> out;
  std::size_t end = text.bytes.size();
  while (static_cast<std::int64_t>(out.size()) < limit && end >= by.size()) {
    const std::size_t at = text.bytes.rfind(by, end - by.size());
    if (at == std::string::npos) break;
    out.emplace_back(text.substr(at + by.size(), end - at - by.size()));
    check_items(out);
    end = at;
  }
  out.emplace_back(text.substr(0, end));
  std::ranges::reverse(out);
  return out;
}

Text replaced(Evaluator& evaluator, const Text& text, const Text& from, const Text& to, std::int64_t limit) {
  Text out;
  std::size_t done = 0, at = 0;
  for (; limit != 0; --limit) {
    std::size_t found = position_of(text.bytes, from.bytes, at);
    if (found == std::string::npos) break;
    out += text.substr(done, found - done);
    out += to;
    evaluator.spend(to.bytes.size() + 16 * text.foreign.size());
    done = found + from.bytes.size();
    at = done;
    if (from.bytes.empty()) {
      if (found == text.bytes.size()) break;
      at = found + decode_utf8(text.bytes, found).length;
    }
  }
  out += text.substr(done);
  return out;
}

Text joined(Evaluator& evaluator, const std::vector<Value>& items, const Text& separator) {
  Text out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i) out += separator;
    evaluator.spend(separator.bytes.size() + items[i].weight());
    out += to_text(items[i]);
  }
  return out;
}

bool is_all(const Text& text, const std::function<bool(char32_t)>& holds) {
  bool all = !text.bytes.empty();
  map_characters(text.bytes, [&](char32_t c) { return all = all && holds(c), c; });
  return all;
}

// Python's startswith and endswith take one string or several.
bool matches_any(Evaluator& evaluator, const Value& candidates, const std::function<bool(const std::string&)>& matches) {
  if (!candidates.list()) return matches(want_text(candidates, "startswith or endswith").bytes);
  evaluator.spend(candidates.weight());
  return std::ranges::any_of(candidates.list()->items, [&](const Value& v) { return matches(want_text(v, "startswith or endswith").bytes); });
}

Text indented(Evaluator& evaluator, const Text& text, std::int64_t width, bool first, bool blank) {
  const Text margin{std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(width, 0, 1000)), ' ')};
  Text out;
  std::size_t at = 0;
  for (bool is_first = true; at <= text.bytes.size(); is_first = false) {
    const std::size_t end = std::min(text.bytes.find('\n', at), text.bytes.size());
    evaluator.spend(margin.bytes.size() + 16 * text.foreign.size());
    if (!is_first) out += Text("\n");
    if ((is_first ? first : true) && (blank || is_first || end > at)) out += margin;
    out += text.substr(at, end - at);
    at = end + 1;
  }
  return out;
}

// --- numbers ---

Value to_integer(const Value& value, const Value& otherwise) {
  if (value.is_integer()) return Value(value.integer());
  if (value.is<double>() && std::abs(value.number()) < 9e18) return Value(static_cast<std::int64_t>(value.number()));
  if (const Text* text = value.text()) {
    const std::string trimmed = stripped(*text, Value(), true, true).bytes;
    std::int64_t out = 0;
    const auto [end, error] = std::from_chars(trimmed.data(), trimmed.data() + trimmed.size(), out);
    if (error == std::errc{} && end == trimmed.data() + trimmed.size()) return Value(out);
  }
  return otherwise;
}

Value to_float(const Value& value, const Value& otherwise) {
  if (value.is_number()) return Value(value.number());
  if (const Text* text = value.text()) {
    const std::string trimmed = stripped(*text, Value(), true, true).bytes;
    double out = 0;
    const auto [end, error] = std::from_chars(trimmed.data(), trimmed.data() + trimmed.size(), out);
    if (error == std::errc{} && end == trimmed.data() + trimmed.size()) return Value(out);
  }
  return otherwise;
}

// --- lists ---

Value path(Evaluator& evaluator, const Value& value, const Value& name) {  // "a.b.0", as map(attribute=…) takes it
  if (name.is_integer()) return item(value, name);
  evaluator.spend(16 * name.weight());
  Value out = value;
  for (const Value& part : split(want_text(name, "an attribute"), Value(Text(".")), -1)) {
    const Value index = to_integer(part, Value());
    out = index.is_none() || out.dict() ? attribute(out, part.text()->bytes) : item(out, index);
  }
  return out;
}

Value mapped(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  std::vector<Value> out;
  if (const Value* name = arguments.find(SIZE_MAX, "attribute")) {
    const Value otherwise = arguments.get(SIZE_MAX, "default", Value(Undefined{"an attribute"}));
    for (const Value& element : elements(value)) {
      const Value found = path(evaluator, element, *name);
      out.push_back(found.is_undefined() ? otherwise : found);
    }
    return Value::list(std::move(out));
  }
  if (arguments.positional.empty()) throw Problem("map wants a filter or an attribute");
  Arguments rest = arguments;
  const std::string filter = want_text(rest.positional.front(), "map").bytes;
  rest.positional.erase(rest.positional.begin());
  for (const Value& element : elements(value)) out.push_back(evaluator.filter(filter, element, rest));
  return Value::list(std::move(out));
}

// select, reject and their …attr: which elements stay
Value selected(Evaluator& evaluator, const Value& value, Arguments arguments, bool by_attribute, bool wanted) {
  const auto take = [&] {
    Value first = std::move(arguments.positional.front());
    arguments.positional.erase(arguments.positional.begin());
    return first;
  };
  Value name;
  if (by_attribute) {
    if (arguments.positional.empty()) throw Problem("selectattr and rejectattr want an attribute");
    name = take();
  }
  const std::string test = arguments.positional.empty() ? "" : want_text(take(), "a test's name").bytes;
  std::vector<Value> out;
  for (const Value& element : elements(value)) {
    const Value subject = by_attribute ? path(evaluator, element, name) : element;
    const bool holds = test.empty() ? subject.truth() : evaluator.test(test, subject, arguments);
    if (holds == wanted) out.push_back(element);
  }
  return Value::list(std::move(out));
}

Value sorted(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  std::vector<Value> items = elements(value);
  const bool reverse = arguments.get(0, "reverse", Value(false)).truth();
  const bool case_sensitive = arguments.get(1, "case_sensitive", Value(false)).truth();
  const Value* name = arguments.find(2, "attribute");
  const auto key = [&](const Value& element) {
    Value found = name ? path(evaluator, element, *name) : element;
    evaluator.spend(16 + found.weight());
    return found.text() && !case_sensitive ? Value(found.text()->with_bytes(map_characters(found.text()->bytes, lower))) : found;
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const Value& a, const Value& b) { return reverse ? less(key(b), key(a)) : less(key(a), key(b)); });
  return Value::list(std::move(items));
}

Value unique(Evaluator& evaluator, const Value& value) {
  std::vector<Value> out;
  for (const Value& element : elements(value)) {
    evaluator.spend(16 * out.size() + std::min(out.size() * element.weight(), value.weight()));
    if (std::ranges::none_of(out, [&](const Value& seen) { return equal(seen, element); })) out.push_back(element);
  }
  return Value::list(std::move(out));
}

Value pairs(const Value& value) {
  if (value.is_undefined()) return Value::list({});
  if (!value.dict()) throw Problem(fmt::format("items wants a mapping, not {}", value.type()));
  std::vector<Value> out;
  for (const auto& [key, member] : value.dict()->members) out.push_back(Value::list({Value(key), member}, true));
  return Value::list(std::move(out));
}

Value dict_sorted(Evaluator& evaluator, const Value& value) {
  Arguments by_key;
  by_key.named.emplace_back("attribute", Value(std::int64_t{0}));
  return sorted(evaluator, pairs(value), by_key);
}

Value extreme(Evaluator& evaluator, const Value& value, bool largest) {
  const std::vector<Value> items = elements(value);
  evaluator.spend(2 * value.weight());
  if (items.empty()) return Value(Undefined{"the extreme of an empty list"});
  return largest ? *std::ranges::max_element(items, less) : *std::ranges::min_element(items, less);
}

Value summed(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  double sum = 0;
  bool integers = true;
  const Value* name = arguments.find(0, "attribute");
  for (const Value& element : elements(value)) {
    const Value number = name ? path(evaluator, element, *name) : element;
    if (!number.is_number()) throw Problem(fmt::format("sum wants numbers, not {}", number.type()));
    integers = integers && number.is_integer();
    sum += number.number();
  }
  return integers && std::abs(sum) < 9e15 ? Value(static_cast<std::int64_t>(sum)) : Value(sum);
}

Value reversed(const Value& value) {
  std::vector<Value> items = elements(value);
  std::ranges::reverse(items);
  if (!value.text()) return Value::list(std::move(items));
  Text out;
  for (const Value& character : items) out += *character.text();
  return Value(std::move(out));
}

Value json_of(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  evaluator.spend(value.weight());
  JsonStyle style;
  const Value indent = arguments.get(0, "indent", Value());
  if (!indent.is_none()) style.indent = static_cast<int>(std::clamp<std::int64_t>(want_integer(indent, "tojson"), 0, 16));
  style.sort_keys = arguments.get(SIZE_MAX, "sort_keys", Value(false)).truth();
  if (const Value* separators = arguments.find(SIZE_MAX, "separators"); separators && separators->list()) {
    const std::vector<Value>& both = separators->list()->items;
    if (both.size() != 2) throw Problem("tojson wants two separators");
    style.item_separator = want_text(both[0], "tojson").bytes;
    style.key_separator = want_text(both[1], "tojson").bytes;
  }
  return Value(Text(to_json(value, style), true));
}

Value first_or_last(const Value& value, bool first) {
  const std::vector<Value> items = elements(value);
  if (items.empty()) return Value(Undefined{first ? "the first of nothing" : "the last of nothing"});
  return first ? items.front() : items.back();
}

Value rounded(const Value& value, const Arguments& arguments) {
  if (!value.is_number()) throw Problem(fmt::format("round wants a number, not {}", value.type()));
  const double scale = std::pow(10.0, static_cast<double>(std::clamp<std::int64_t>(want_integer(arguments.get(0, "precision", Value(std::int64_t{0})), "round"), -15, 15)));
  return Value(std::nearbyint(value.number() * scale) / scale);
}

Value size_of(const Value& value) { return Value(static_cast<std::int64_t>(length(value))); }
Value cased(const Value& value, char32_t (*change)(char32_t)) {
  const Text text = to_text(value);
  return Value(text.with_bytes(map_characters(text.bytes, change)));
}

using Filter = Value (*)(Evaluator&, const Value&, const Arguments&);
const std::unordered_map<std::string_view, Filter>& filters() {
  static const std::unordered_map<std::string_view, Filter> table = {
      {"trim", [](Evaluator&, const Value& v, const Arguments& a) { return Value(stripped(to_text(v), a.get(0, "chars", Value()), true, true)); }},
      {"tojson", [](Evaluator& e, const Value& v, const Arguments& a) { return json_of(e, v, a); }},
      {"length", [](Evaluator&, const Value& v, const Arguments&) { return size_of(v); }},
      {"count", [](Evaluator&, const Value& v, const Arguments&) { return size_of(v); }},
      {"upper", [](Evaluator&, const Value& v, const Arguments&) { return cased(v, upper); }},
      {"lower", [](Evaluator&, const Value& v, const Arguments&) { return cased(v, lower); }},
      {"capitalize", [](Evaluator&, const Value& v, const Arguments&) { return Value(capitalized(to_text(v), never)); }},
      {"title", [](Evaluator&, const Value& v, const Arguments&) { return Value(capitalized(to_text(v), begins_title)); }},
      {"join",
       [](Evaluator& e, const Value& v, const Arguments& a) {
         const Value* name = a.find(1, "attribute");
         std::vector<Value> items = elements(v);
         if (name)
           for (Value& element : items) element = path(e, element, *name);
         return Value(joined(e, items, to_text(a.get(0, "d", Value(Text())))));
       }},
      {"default",
       [](Evaluator&, const Value& v, const Arguments& a) {
         const bool replace = v.is_undefined() || (a.get(1, "boolean", Value(false)).truth() && !v.truth());
         return replace ? a.get(0, "default_value", Value(Text())) : v;
       }},
      {"first", [](Evaluator&, const Value& v, const Arguments&) { return first_or_last(v, true); }},
      {"last", [](Evaluator&, const Value& v, const Arguments&) { return first_or_last(v, false); }},
      {"list", [](Evaluator&, const Value& v, const Arguments&) { return Value::list(elements(v)); }},
      {"map", [](Evaluator& e, const Value& v, const Arguments& a) { return mapped(e, v, a); }},
      {"select", [](Evaluator& e, const Value& v, const Arguments& a) { return selected(e, v, a, false, true); }},
      {"reject", [](Evaluator& e, const Value& v, const Arguments& a) { return selected(e, v, a, false, false); }},
      {"selectattr", [](Evaluator& e, const Value& v, const Arguments& a) { return selected(e, v, a, true, true); }},
      {"rejectattr", [](Evaluator& e, const Value& v, const Arguments& a) { return selected(e, v, a, true, false); }},
      {"replace",
       [](Evaluator& e, const Value& v, const Arguments& a) {
         const Value count = a.get(2, "count", Value());
         return Value(replaced(e, to_text(v), to_text(a.get(0, "old", Value(Text()))), to_text(a.get(1, "new", Value(Text()))),
                               count.is_none() ? -1 : want_integer(count, "replace")));
       }},
      {"items", [](Evaluator&, const Value& v, const Arguments&) { return pairs(v); }},
      {"dictsort", [](Evaluator& e, const Value& v, const Arguments&) { return dict_sorted(e, v); }},
      {"sort", [](Evaluator& e, const Value& v, const Arguments& a) { return sorted(e, v, a); }},
      {"unique", [](Evaluator& e, const Value& v, const Arguments&) { return unique(e, v); }},
      {"reverse", [](Evaluator&, const Value& v, const Arguments&) { return reversed(v); }},
      {"string", [](Evaluator&, const Value& v, const Arguments&) { return Value(to_text(v)); }},
      {"safe", [](Evaluator&, const Value& v, const Arguments&) { return Value(to_text(v)); }},
      {"int", [](Evaluator&, const Value& v, const Arguments& a) { return to_integer(v, a.get(0, "default", Value(std::int64_t{0}))); }},
      {"float", [](Evaluator&, const Value& v, const Arguments& a) { return to_float(v, a.get(0, "default", Value(0.0))); }},
      {"abs",
       [](Evaluator&, const Value& v, const Arguments&) {
         if (!v.is_number()) throw Problem("abs wants a number");
         return v.is_integer() && v.integer() != INT64_MIN ? Value(std::abs(v.integer())) : Value(std::abs(v.number()));
       }},
      {"round", [](Evaluator&, const Value& v, const Arguments& a) { return rounded(v, a); }},
      {"sum", [](Evaluator& e, const Value& v, const Arguments& a) { return summed(e, v, a); }},
      {"min", [](Evaluator& e, const Value& v, const Arguments&) { return extreme(e, v, false); }},
      {"max", [](Evaluator& e, const Value& v, const Arguments&) { return extreme(e, v, true); }},
      {"attr", [](Evaluator&, const Value& v, const Arguments& a) { return attribute(v, want_text(a.get(0, "name", Value()), "attr").bytes); }},
      {"indent",
       [](Evaluator& e, const Value& v, const Arguments& a) {
         return Value(indented(e, to_text(v), want_integer(a.get(0, "width", Value(std::int64_t{4})), "indent"),
                               a.get(1, "first", Value(false)).truth(), a.get(2, "blank", Value(false)).truth()));
       }},
  };
  return table;
}

using Test = bool (*)(const Value&, const Arguments&);
const Value& operand(const Arguments& arguments) {
  if (arguments.positional.size() != 1) throw Problem("a test wants one operand");
  return arguments.positional.front();
}
const std::unordered_map<std::string_view, Test>& tests() {
  static const std::unordered_map<std::string_view, Test> table = {
      {"defined", [](const Value& v, const Arguments&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, const Arguments&) { return v.is_undefined(); }},
      {"none", [](const Value& v, const Arguments&) { return v.is_none(); }},
      {"string", [](const Value& v, const Arguments&) { return v.text() != nullptr; }},
      {"mapping", [](const Value& v, const Arguments&) { return v.dict() != nullptr; }},
      {"iterable", [](const Value& v, const Arguments&) { return v.text() || v.list() || v.dict() || v.is_undefined(); }},
      {"sequence", [](const Value& v, const Arguments&) { return v.text() || v.list() || v.dict() || v.is_undefined(); }},
      {"number", [](const Value& v, const Arguments&) { return v.is_number(); }},
      {"integer", [](const Value& v, const Arguments&) { return v.is<std::int64_t>(); }},
      {"float", [](const Value& v, const Arguments&) { return v.is<double>(); }},
      {"boolean", [](const Value& v, const Arguments&) { return v.is<bool>(); }},
      {"true", [](const Value& v, const Arguments&) { return v.is<bool>() && v.truth(); }},
      {"false", [](const Value& v, const Arguments&) { return v.is<bool>() && !v.truth(); }},
      {"callable", [](const Value& v, const Arguments&) { return v.macro() || v.function(); }},
      {"odd", [](const Value& v, const Arguments&) { return want_integer(v, "odd") % 2 != 0; }},
      {"even", [](const Value& v, const Arguments&) { return want_integer(v, "even") % 2 == 0; }},
      {"divisibleby",
       [](const Value& v, const Arguments& a) {
         const std::int64_t by = want_integer(operand(a), "divisibleby");
         if (by == 0) throw Problem("division by zero");
         return by == -1 || want_integer(v, "divisibleby") % by == 0;
       }},
      {"equalto", [](const Value& v, const Arguments& a) { return equal(v, operand(a)); }},
      {"eq", [](const Value& v, const Arguments& a) { return equal(v, operand(a)); }},
      {"sameas", [](const Value& v, const Arguments& a) { return v.variant().index() == operand(a).variant().index() && equal(v, operand(a)); }},
      {"ne", [](const Value& v, const Arguments& a) { return !equal(v, operand(a)); }},
      {"lt", [](const Value& v, const Arguments& a) { return less(v, operand(a)); }},
      {"gt", [](const Value& v, const Arguments& a) { return less(operand(a), v); }},
      {"le", [](const Value& v, const Arguments& a) { return !less(operand(a), v); }},
      {"ge", [](const Value& v, const Arguments& a) { return !less(v, operand(a)); }},
      {"lessthan", [](const Value& v, const Arguments& a) { return less(v, operand(a)); }},
      {"greaterthan", [](const Value& v, const Arguments& a) { return less(operand(a), v); }},
      {"in", [](const Value& v, const Arguments& a) { return contains(operand(a), v); }},
      {"lower", [](const Value& v, const Arguments&) { return to_text(v).bytes == to_text(cased(v, lower)).bytes; }},
      {"upper", [](const Value& v, const Arguments&) { return to_text(v).bytes == to_text(cased(v, upper)).bytes; }},
  };
  return table;
}

using Method = Value (*)(Evaluator&, const Text&, const Arguments&);
const std::unordered_map<std::string_view, Method>& text_methods() {
  static const std::unordered_map<std::string_view, Method> table = {
      {"strip", [](Evaluator&, const Text& t, const Arguments& a) { return Value(stripped(t, a.get(0, "chars", Value()), true, true)); }},
      {"lstrip", [](Evaluator&, const Text& t, const Arguments& a) { return Value(stripped(t, a.get(0, "chars", Value()), true, false)); }},
      {"rstrip", [](Evaluator&, const Text& t, const Arguments& a) { return Value(stripped(t, a.get(0, "chars", Value()), false, true)); }},
      {"split",
       [](Evaluator&, const Text& t, const Arguments& a) {
         return Value::list(split(t, a.get(0, "sep", Value()), want_integer(a.get(1, "maxsplit", Value(std::int64_t{-1})), "split")));
       }},
      {"rsplit",
       [](Evaluator& e, const Text& t, const Arguments& a) {
         return Value::list(split_from_right(e, t, a.get(0, "sep", Value()), want_integer(a.get(1, "maxsplit", Value(std::int64_t{-1})), "rsplit")));
       }},
      {"splitlines",
       [](Evaluator& e, const Text& t, const Arguments&) {
         std::vector<Value> lines = split(replaced(e, t, Text("\r\n"), Text("\n"), -1), Value(Text("\n")), -1);
         if (lines.back().text()->bytes.empty()) lines.pop_back();
         return Value::list(std::move(lines));
       }},
      {"startswith",
       [](Evaluator& e, const Text& t, const Arguments& a) {
         return Value(matches_any(e, a.get(0, "prefix", Value()), [&](const std::string& prefix) { return t.bytes.starts_with(prefix); }));
       }},
      {"endswith",
       [](Evaluator& e, const Text& t, const Arguments& a) {
         return Value(matches_any(e, a.get(0, "suffix", Value()), [&](const std::string& suffix) { return t.bytes.ends_with(suffix); }));
       }},
      {"removeprefix",
       [](Evaluator&, const Text& t, const Arguments& a) {
         const std::string prefix = want_text(a.get(0, "prefix", Value()), "removeprefix").bytes;
         return Value(t.bytes.starts_with(prefix) ? t.substr(prefix.size()) : t);
       }},
      {"removesuffix",
       [](Evaluator&, const Text& t, const Arguments& a) {
         const std::string suffix = want_text(a.get(0, "suffix", Value()), "removesuffix").bytes;
         return Value(t.bytes.ends_with(suffix) ? t.substr(0, t.bytes.size() - suffix.size()) : t);
       }},
      {"upper", [](Evaluator&, const Text& t, const Arguments&) { return Value(t.with_bytes(map_characters(t.bytes, upper))); }},
      {"lower", [](Evaluator&, const Text& t, const Arguments&) { return Value(t.with_bytes(map_characters(t.bytes, lower))); }},
      {"capitalize", [](Evaluator&, const Text& t, const Arguments&) { return Value(capitalized(t, never)); }},
      {"title", [](Evaluator&, const Text& t, const Arguments&) { return Value(capitalized(t, not_a_letter)); }},
      {"replace",
       [](Evaluator& e, const Text& t, const Arguments& a) {
         return Value(replaced(e, t, want_text(a.get(0, "old", Value()), "replace"), want_text(a.get(1, "new", Value()), "replace"),
                               want_integer(a.get(2, "count", Value(std::int64_t{-1})), "replace")));
       }},
      {"find",
       [](Evaluator&, const Text& t, const Arguments& a) {
         const std::size_t at = position_of(t.bytes, want_text(a.get(0, "sub", Value()), "find").bytes);
         return at == std::string::npos ? Value(std::int64_t{-1}) : size_of(Value(t.substr(0, at)));
       }},
      {"count",
       [](Evaluator&, const Text& t, const Arguments& a) {
         return Value(static_cast<std::int64_t>(split(t, Value(want_text(a.get(0, "sub", Value()), "count")), -1).size()) - 1);
       }},
      {"join", [](Evaluator& e, const Text& t, const Arguments& a) { return Value(joined(e, elements(a.get(0, "iterable", Value())), t)); }},
      {"isdigit", [](Evaluator&, const Text& t, const Arguments&) { return Value(is_all(t, [](char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND; })); }},
      {"isalpha", [](Evaluator&, const Text& t, const Arguments&) { return Value(is_all(t, is_letter)); }},
      {"isspace", [](Evaluator&, const Text& t, const Arguments&) { return Value(is_all(t, is_python_space)); }},
      {"isupper", [](Evaluator&, const Text& t, const Arguments&) { return Value(map_characters(t.bytes, upper) == t.bytes && map_characters(t.bytes, lower) != t.bytes); }},
      {"islower", [](Evaluator&, const Text& t, const Arguments&) { return Value(map_characters(t.bytes, lower) == t.bytes && map_characters(t.bytes, upper) != t.bytes); }},
  };
  return table;
}

Value range(Evaluator& evaluator, const Arguments& arguments) {
  const std::size_t count = arguments.positional.size();
  if (count < 1 || count > 3) throw Problem("range wants one to three integers");
  const auto bound = [&](std::size_t i) { return want_integer(arguments.positional[i], "range"); };
  const std::int64_t begin = count > 1 ? bound(0) : 0, end = bound(count > 1 ? 1 : 0), step = count > 2 ? bound(2) : 1;
  if (step == 0) throw Problem("range's step is 0");
  std::vector<Value> out;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(out.size()) == max_range) throw Problem(fmt::format("range gives more than {} numbers", max_range));
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  evaluator.spend(16 * out.size());
  return Value::list(std::move(out));
}

Members named_members(const Arguments& arguments) {
  Members out;
  if (!arguments.positional.empty() && arguments.positional[0].dict()) out = arguments.positional[0].dict()->members;
  for (const auto& [name, value] : arguments.named) out.emplace_back(Text(name), value);
  return out;
}

Value formatted_time(Evaluator& evaluator, const Arguments& arguments) {
  const std::string format = want_text(arguments.get(0, "format", Value()), "strftime_now").bytes;
  std::tm local{};
  const std::time_t now = evaluator.now();
  localtime_r(&now, &local);
  char buffer[1024];
  return Value(Text(std::string_view(buffer, format.size() > 256 ? 0 : std::strftime(buffer, sizeof buffer, format.c_str(), &local))));
}

using Call = Value (*)(Evaluator&, const Arguments&);
const std::unordered_map<std::string_view, Call>& functions() {
  static const std::unordered_map<std::string_view, Call> table = {
      {"range", range},
      {"namespace",
       [](Evaluator&, const Arguments& a) {
         Value::dict(named_members(a));  // checks that they may be put into another
         return Value(std::make_shared<Namespace>(Namespace{named_members(a)}));
       }},
      {"dict", [](Evaluator&, const Arguments& a) { return Value::dict(named_members(a)); }},
      {"raise_exception", [](Evaluator&, const Arguments& a) -> Value { throw Raised(to_text(a.get(0, "message", Value(Text()))).bytes); }},
      {"strftime_now", formatted_time},
  };
  return table;
}

Value loop_attribute(const Loop& loop, std::string_view name) {
  const auto index = static_cast<std::int64_t>(loop.index), count = static_cast<std::int64_t>(loop.items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(count - index);
  if (name == "revindex0") return Value(count - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == count);
  if (name == "length") return Value(count);
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < count) return loop.items[loop.index + 1];
  return Value(Undefined{"loop." + std::string(name)});
}

}  // namespace

Value Evaluator::filter(std::string_view name, const Value& value, const Arguments& arguments) {
  const auto found = filters().find(name == "d" ? "default" : name);
  if (found == filters().end()) throw Problem(fmt::format("there is no filter '{}'", name));
  spend(value.text() ? value.text()->bytes.size() : value.list() ? 16 * value.list()->items.size() : 16);
  return found->second(*this, value, arguments);
}

bool Evaluator::test(std::string_view name, const Value& value, const Arguments& arguments) {
  const std::string_view spelled = name == "==" ? "eq" : name == "!=" ? "ne" : name == "<" ? "lt" : name == ">" ? "gt" : name == "<=" ? "le" : name == ">=" ? "ge" : name;
  const auto found = tests().find(spelled);
  if (found == tests().end()) throw Problem(fmt::format("there is no test '{}'", name));
  spend(16 + (arguments.positional.empty() ? 0 : std::max(value.weight(), arguments.positional.front().weight())));
  return found->second(value, arguments);
}

Value attribute(const Value& value, std::string_view name) {
  const Members* members = value.dict() ? &value.dict()->members : value.name_space() ? &value.name_space()->members : nullptr;
  if (members)
    if (const Value* found = find(*members, name)) return *found;
  if (value.loop()) return loop_attribute(*value.loop(), name);
  if (const Undefined* undefined = std::get_if<Undefined>(&value.variant()))
    throw Problem(fmt::format("'{}' is undefined, so it has no '{}'", undefined->name, name));
  return Value(Undefined{std::string(name)});
}

Value item(const Value& value, const Value& key) {
  if (key.text()) return attribute(value, key.text()->bytes);
  if (value.is_undefined()) return attribute(value, "item");
  if (!key.is_integer() || !(value.list() || value.text())) return Value(Undefined{"an item"});
  const auto count = static_cast<std::int64_t>(length(value));
  const std::int64_t at = key.integer() < 0 ? key.integer() + count : key.integer();
  if (at < 0 || at >= count) return Value(Undefined{"an item beyond the end"});
  const auto i = static_cast<std::size_t>(at);
  return value.list() ? value.list()->items[i] : Value(value.text()->characters(i, i + 1));
}

Value call_method(Evaluator& evaluator, const Value& value, std::string_view name, const Arguments& arguments) {
  if (const Text* text = value.text()) {
    if (const auto found = text_methods().find(name); found != text_methods().end()) {
      evaluator.spend(text->bytes.size() + 16 * text->foreign.size());
      return found->second(evaluator, *text, arguments);
    }
  }
  if (const Dict* dict = value.dict()) {
    evaluator.spend(16 * dict->members.size());
    if (name == "items") return pairs(value);
    if (name == "keys") return Value::list(elements(value));
    if (name == "values") {
      std::vector<Value> out;
      for (const auto& [key, member] : dict->members) out.push_back(member);
      return Value::list(std::move(out));
    }
    if (name == "get") {
      const Value key = arguments.get(0, "key", Value());
      const Value* found = key.text() ? find(dict->members, key.text()->bytes) : nullptr;
      return found ? *found : arguments.get(1, "default", Value());
    }
  }
  if (const Loop* loop = value.loop(); loop && name == "cycle" && !arguments.positional.empty())
    return arguments.positional[loop->index % arguments.positional.size()];
  throw Problem(fmt::format("{} has no method '{}'", value.type(), name));
}

Value call_function(Evaluator& evaluator, std::string_view name, const Arguments& arguments) {
  return functions().at(name)(evaluator, arguments);
}

std::vector<std::string_view> function_names() {
  std::vector<std::string_view> out;
  for (const auto& [name, call] : functions()) out.push_back(name);
  return out;
}

}  // namespace lmkit::jinja
