// SPDX-License-Identifier: Apache-2.0
#include "jinja_value.hpp"

#include <fmt/format.h>
#include <lmkit/text/utf8.hpp>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>

namespace lmkit::jinja {
namespace {

constexpr int max_depth = 100;  // of lists and dicts in one another
constexpr std::size_t max_weight = std::size_t{1} << 40;  // where counting stops; 2^20 of them still fit

int checked_depth(int depth) {
  if (depth > max_depth) throw Problem("a value is nested too deeply, or a namespace is put into another value");
  return depth;
}

void check_text(const std::string& text) {
  if (text.size() > max_text) throw Problem("a text gets too long");
}

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string out = fmt::format("{}", value);
  if (out.find_first_not_of("-0123456789") == std::string::npos) out += ".0";
  return out;
}

std::string quoted(std::string_view text) {  // Python's repr of a str
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      out += '\\', out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  return out += quote;
}

std::string repr(const Value& value) {
  if (const Text* text = value.text()) return quoted(text->bytes);
  if (const List* list = value.list()) {
    std::string out(1, list->tuple ? '(' : '[');
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      out += (i ? ", " : "") + repr(list->items[i]);
      check_text(out);
    }
    if (list->tuple && list->items.size() == 1) out += ',';
    return out += list->tuple ? ')' : ']';
  }
  if (const Dict* dict = value.dict()) {
    std::string out = "{";
    for (const auto& [key, member] : dict->members) {
      out += (out.size() > 1 ? ", " : "") + quoted(key.bytes) + ": " + repr(member);
      check_text(out);
    }
    return out += '}';
  }
  return to_text(value).bytes;
}

void write_json_text(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write_json(const Value& value, const JsonStyle& style, int level, std::string& out) {
  const auto new_line = [&](int at) {
    if (style.indent >= 0) out += '\n' + std::string(static_cast<std::size_t>(style.indent * at), ' ');
  };
  check_text(out);
  std::string_view separator = style.item_separator;
  if (style.indent >= 0 && separator == ", ") separator = ",";  // as json.dumps does

  if (value.is_none()) {
    out += "null";
  } else if (value.is<bool>()) {
    out += value.truth() ? "true" : "false";
  } else if (value.is<std::int64_t>()) {
    out += fmt::format("{}", value.integer());
  } else if (value.is<double>()) {
    const double number = value.number();
    out += std::isnan(number) ? "NaN" : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity") : python_float(number);
  } else if (const Text* text = value.text()) {
    write_json_text(text->bytes, out);
  } else if (const List* list = value.list()) {
    out += '[';
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      if (i) out += separator;
      new_line(level + 1);
      write_json(list->items[i], style, level + 1, out);
    }
    if (!list->items.empty()) new_line(level);
    out += ']';
  } else if (const Dict* dict = value.dict()) {
    std::vector<const Members::value_type*> order;
    for (const auto& entry : dict->members) order.push_back(&entry);
    if (style.sort_keys) std::ranges::stable_sort(order, {}, [](const auto* entry) -> const std::string& { return entry->first.bytes; });
    out += '{';
    for (const auto* entry : order) {
      if (entry != order.front()) out += separator;
      new_line(level + 1);
      write_json_text(entry->first.bytes, out);
      out += style.key_separator;
      write_json(entry->second, style, level + 1, out);
    }
    if (!order.empty()) new_line(level);
    out += '}';
  } else {
    throw Problem(fmt::format("{} has no JSON form", value.type()));
  }
}

}  // namespace

Text::Text(std::string_view text, bool is_foreign) : bytes(text) {
  if (is_foreign && !text.empty()) foreign.push_back({0, text.size()});
}

Text& Text::operator+=(const Text& other) {
  const std::size_t offset = bytes.size(), ranges = other.foreign.size();
  bytes += other.bytes;
  for (std::size_t i = 0; i < ranges; ++i) {
    const TextRange range{other.foreign[i].begin + offset, other.foreign[i].end + offset};
    if (!foreign.empty() && foreign.back().end == range.begin) {
      foreign.back().end = range.end;
    } else {
      foreign.push_back(range);
    }
  }
  return *this;
}

Text Text::substr(std::size_t begin, std::size_t count) const {
  Text out;
  out.bytes = bytes.substr(begin, count);
  const std::size_t end = begin + out.bytes.size();
  for (const TextRange& range : foreign) {
    const TextRange common{std::max(range.begin, begin), std::min(range.end, end)};
    if (common.begin < common.end) out.foreign.push_back({common.begin - begin, common.end - begin});
  }
  return out;
}

Text Text::characters(std::size_t begin, std::size_t end) const {
  std::size_t at = 0;
  const auto skip = [&](std::size_t count) {
    for (; count > 0 && at < bytes.size(); --count) at += decode_utf8(bytes, at).length;
    return at;
  };
  const std::size_t first = skip(begin), last = skip(end - begin);
  return substr(first, last - first);
}

Text Text::with_bytes(std::string changed) const { return Text(changed, !foreign.empty()); }

Value Value::list(std::vector<Value> items, bool tuple) {
  if (items.size() > max_items) throw Problem("a list gets too long");
  int depth = 0;
  std::size_t weight = 16 * items.size();
  for (const Value& item : items) depth = std::max(depth, item.depth()), weight += item.weight();
  Value out;
  out.value_ = std::make_shared<const List>(List{std::move(items), tuple, checked_depth(depth + 1), std::min(weight, max_weight)});
  return out;
}

Value Value::dict(Members members) {
  int depth = 0;
  std::size_t weight = 0;
  for (const auto& [key, value] : members) depth = std::max(depth, value.depth()), weight += 16 + key.bytes.size() + value.weight();
  Value out;
  out.value_ = std::make_shared<const Dict>(Dict{std::move(members), checked_depth(depth + 1), std::min(weight, max_weight)});
  return out;
}

std::int64_t Value::integer() const { return is<bool>() ? std::get<bool>(value_) : std::get<std::int64_t>(value_); }
double Value::number() const { return is<double>() ? std::get<double>(value_) : static_cast<double>(integer()); }

bool Value::truth() const noexcept {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const Text* held = text()) return !held->bytes.empty();
  if (const List* held = list()) return !held->items.empty();
  if (const Dict* held = dict()) return !held->members.empty();
  return true;
}

int Value::depth() const noexcept {
  if (const List* held = list()) return held->depth;
  if (const Dict* held = dict()) return held->depth;
  if (const Loop* held = loop()) return held->depth;
  return name_space() ? max_depth : 0;  // it is the only value that could come to hold itself
}

std::size_t Value::weight() const noexcept {
  if (const Text* held = text()) return held->bytes.size();
  if (const List* held = list()) return held->weight;
  return dict() ? dict()->weight : 0;
}

std::string_view Value::type() const noexcept {
  constexpr std::string_view names[] = {"an undefined value", "none", "a boolean", "an integer", "a float", "a string", "a list",
                                        "a mapping", "a namespace", "a loop", "a macro", "a function"};
  return names[value_.index()];
}

const Value* find(const Members& members, std::string_view key) noexcept {
  const auto found = std::ranges::find_if(members, [&](const auto& entry) { return entry.first.bytes == key; });
  return found == members.end() ? nullptr : &found->second;
}

std::size_t position_of(std::string_view text, std::string_view sought, std::size_t from) noexcept {
  if (from > text.size()) return std::string_view::npos;
  const void* const found = memmem(text.data() + from, text.size() - from, sought.data(), sought.size());
  return found ? static_cast<std::size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return a.is_integer() && b.is_integer() ? a.integer() == b.integer() : a.number() == b.number();
  if (a.variant().index() != b.variant().index()) return false;
  if (a.text()) return a.text()->bytes == b.text()->bytes;
  if (a.list()) return a.list()->tuple == b.list()->tuple && std::ranges::equal(a.list()->items, b.list()->items, equal);
  if (a.dict()) {
    const Members &left = a.dict()->members, &right = b.dict()->members;
    return left.size() == right.size() && std::ranges::all_of(left, [&](const auto& entry) {
             const Value* other = find(right, entry.first.bytes);
             return other && equal(entry.second, *other);
           });
  }
  if (a.macro()) return a.macro() == b.macro();
  if (a.name_space()) return a.name_space() == b.name_space();
  return a.is_none() || a.is_undefined();
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return a.is_integer() && b.is_integer() ? a.integer() < b.integer() : a.number() < b.number();
  if (a.text() && b.text()) return a.text()->bytes < b.text()->bytes;
  throw Problem(fmt::format("{} and {} have no order", a.type(), b.type()));
}

bool contains(const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (!item.text()) throw Problem(fmt::format("a string cannot contain {}", item.type()));
    return position_of(text->bytes, item.text()->bytes) != std::string::npos;
  }
  if (const List* list = container.list()) return std::ranges::any_of(list->items, [&](const Value& v) { return equal(v, item); });
  if (const Dict* dict = container.dict()) return item.text() && find(dict->members, item.text()->bytes);
  if (container.is_undefined()) return false;
  throw Problem(fmt::format("{} is not a container", container.type()));
}

std::vector<Value> elements(const Value& value) {
  std::vector<Value> out;
  if (const List* list = value.list()) return list->items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, member] : dict->members) out.emplace_back(key);
  } else if (const Text* text = value.text()) {
    if (length(value) > max_items) throw Problem("a text is too long to be taken apart");
    for (std::size_t at = 0; at < text->bytes.size();) {
      const std::size_t length = decode_utf8(text->bytes, at).length;
      out.emplace_back(text->substr(at, length));
      at += length;
    }
  } else if (!value.is_undefined()) {
    throw Problem(fmt::format("{} cannot be iterated over", value.type()));
  }
  return out;
}

std::size_t length(const Value& value) {
  if (const Text* text = value.text())
    return static_cast<std::size_t>(std::ranges::count_if(text->bytes, [](char c) { return (c & 0xC0) != 0x80; }));
  if (const List* list = value.list()) return list->items.size();
  if (const Dict* dict = value.dict()) return dict->members.size();
  if (value.is_undefined()) return 0;
  throw Problem(fmt::format("{} has no length", value.type()));
}

Text to_text(const Value& value) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) return Text();
  if (value.is_none()) return Text("None");
  if (value.is<bool>()) return Text(value.truth() ? "True" : "False");
  if (value.is<std::int64_t>()) return Text(fmt::format("{}", value.integer()));
  if (value.is<double>()) return Text(python_float(value.number()));
  if (value.list() || value.dict()) return Text(repr(value), true);
  throw Problem(fmt::format("{} has no text", value.type()));
}

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  write_json(value, style, 0, out);
  return out;
}

Value from_json(const boost::json::value& value) {
  using boost::json::kind;
  switch (value.kind()) {
    case kind::null: return Value();
    case kind::bool_: return Value(value.get_bool());
    case kind::int64: return Value(value.get_int64());
    case kind::uint64: return Value(static_cast<double>(value.get_uint64()));
    case kind::double_: return Value(value.get_double());
    case kind::string: return Value(Text(value.get_string(), true));
    case kind::array: {
      std::vector<Value> items;
      for (const auto& item : value.get_array()) items.push_back(from_json(item));
      return Value::list(std::move(items));
    }
    case kind::object: break;
  }
  Members members;
  for (const auto& [key, member] : value.get_object()) members.emplace_back(Text(key, true), from_json(member));
  return Value::dict(std::move(members));
}

bool is_python_space(char32_t c) noexcept {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace lmkit::jinja
