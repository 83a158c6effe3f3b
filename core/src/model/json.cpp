// SPDX-License-Identifier: Apache-2.0
#include "json.hpp"

#include <lmkit/base/error.hpp>

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <cmath>
#include <unordered_set>

namespace lmkit {
namespace {

namespace json = boost::json;

constexpr std::size_t deepest = 32;
constexpr std::size_t most_values = 4'000'000;  // keeps the parsed tree of the largest header below some 200 MB

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

// Looks at a text without keeping it: counts values, and throws on a key that its object has already.
class Inspector {
 public:
  static constexpr std::size_t max_object_size = SIZE_MAX, max_array_size = SIZE_MAX, max_key_size = SIZE_MAX, max_string_size = SIZE_MAX;

  explicit Inspector(std::string_view what) : what_(what) {}

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    keys_.emplace_back();
    return count();
  }
  bool on_object_end(std::size_t, json::error_code&) {
    keys_.pop_back();
    return true;
  }
  bool on_array_begin(json::error_code&) { return count(); }
  bool on_array_end(std::size_t, json::error_code&) { return true; }
  bool on_key_part(json::string_view part, std::size_t, json::error_code&) {
    key_.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view part, std::size_t, json::error_code&) {
    key_.append(part.data(), part.size());
    if (keys_.back().contains(key_)) bad(fmt::format("{} has the key {:?} twice", what_, key_));
    keys_.back().insert(std::exchange(key_, {}));
    return true;
  }
  bool on_string_part(json::string_view, std::size_t, json::error_code&) { return true; }
  bool on_string(json::string_view, std::size_t, json::error_code&) { return count(); }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(std::int64_t, json::string_view, json::error_code&) { return count(); }
  bool on_uint64(std::uint64_t, json::string_view, json::error_code&) { return count(); }
  bool on_double(double, json::string_view, json::error_code&) { return count(); }
  bool on_bool(bool, json::error_code&) { return count(); }
  bool on_null(json::error_code&) { return count(); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  bool count() {
    if (++values_ > most_values) bad(fmt::format("{} has more than {} values", what_, most_values));
    return true;
  }

  std::string_view what_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the open objects
  std::string key_;
  std::size_t values_ = 0;
};

}  // namespace

json::object parse_json(std::string_view text, std::string_view what) {
  json::parse_options options;
  options.max_depth = deepest;
  json::basic_parser<Inspector> inspector(options, what);
  json::error_code failure;
  const std::size_t read = inspector.write_some(false, text.data(), text.size(), failure);
  if (failure) bad(fmt::format("{} is not JSON: {} at byte {}", what, failure.message(), read), "a JSON object", "downloading the file again");
  if (text.substr(read).find_first_not_of(" \t\r\n") != text.npos)
    bad(fmt::format("{} has something behind its JSON at byte {}", what, read), "one JSON object", "downloading the file again");
  json::value value = json::parse(json::string_view(text.data(), read), {}, options);
  if (!value.is_object()) bad(fmt::format("{} is not a JSON object", what), "a JSON object");
  return std::move(value.get_object());
}

namespace {

const json::value* present(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(json::string_view(key.data(), key.size()));
  return value && !value->is_null() ? value : nullptr;
}

[[noreturn]] void wrong_type(std::string_view key, const char* expected) {
  bad(fmt::format("{:?} has the wrong type", key), expected);
}

std::int64_t integer_of(const json::value& value, std::string_view key, std::int64_t low, std::int64_t high) {
  if (!value.is_int64() && !value.is_uint64()) wrong_type(key, "an integer");
  const bool huge = value.is_uint64();  // beyond the largest int64
  if (huge || value.get_int64() < low || value.get_int64() > high)
    bad(fmt::format("{:?} is {}", key, huge ? std::to_string(value.get_uint64()) : std::to_string(value.get_int64())),
        fmt::format("{} to {}", low, high));
  return value.get_int64();
}

}  // namespace

std::optional<std::int64_t> json_integer(const json::object& object, std::string_view key, std::int64_t low, std::int64_t high) {
  const json::value* value = present(object, key);
  return value ? std::optional(integer_of(*value, key, low, high)) : std::nullopt;
}

std::optional<double> json_number(const json::object& object, std::string_view key) {
  const json::value* value = present(object, key);
  if (!value) return std::nullopt;
  if (!value->is_number()) wrong_type(key, "a number");
  const double number = value->to_number<double>();
  if (!std::isfinite(number)) bad(fmt::format("{:?} is {}", key, number), "a finite number");
  return number;
}

std::optional<bool> json_boolean(const json::object& object, std::string_view key) {
  const json::value* value = present(object, key);
  if (!value) return std::nullopt;
  if (!value->is_bool()) wrong_type(key, "true or false");
  return value->get_bool();
}

std::optional<std::string> json_text(const json::object& object, std::string_view key) {
  const json::value* value = present(object, key);
  if (!value) return std::nullopt;
  if (!value->is_string()) wrong_type(key, "a string");
  return std::string(value->get_string());
}

const json::object* json_object(const json::object& object, std::string_view key) {
  const json::value* value = present(object, key);
  if (value && !value->is_object()) wrong_type(key, "an object");
  return value ? &value->get_object() : nullptr;
}

std::vector<std::string> json_texts(const json::object& object, std::string_view key) {
  const json::value* value = present(object, key);
  if (!value) return {};
  if (!value->is_array()) wrong_type(key, "a list of strings");
  std::vector<std::string> texts;
  for (const json::value& element : value->get_array()) {
    if (!element.is_string()) wrong_type(key, "a list of strings");
    texts.emplace_back(element.get_string());
  }
  return texts;
}

std::vector<std::int64_t> json_integers(const json::object& object, std::string_view key, std::int64_t low, std::int64_t high) {
  const json::value* value = present(object, key);
  if (!value) return {};
  if (!value->is_array()) return {integer_of(*value, key, low, high)};
  std::vector<std::int64_t> integers;
  for (const json::value& element : value->get_array()) integers.push_back(integer_of(element, key, low, high));
  return integers;
}

}  // namespace lmkit
