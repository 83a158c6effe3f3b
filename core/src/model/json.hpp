// SPDX-License-Identifier: Apache-2.0
//
// JSON out of model files: parsed within bounds, read by key with types and ranges checked. Every problem is an
// Error(model) that names `what` (the file or header) or the key. Keys that appear twice are refused.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

// The object that `text` is.
boost::json::object parse_json(std::string_view text, std::string_view what);

// A value by key: nothing if it is absent or null, Error(model) if it has another type or is outside [low, high].
std::optional<std::int64_t> json_integer(const boost::json::object& object, std::string_view key, std::int64_t low, std::int64_t high);
std::optional<double> json_number(const boost::json::object& object, std::string_view key);  // finite
std::optional<bool> json_boolean(const boost::json::object& object, std::string_view key);
std::optional<std::string> json_text(const boost::json::object& object, std::string_view key);
const boost::json::object* json_object(const boost::json::object& object, std::string_view key);
std::vector<std::string> json_texts(const boost::json::object& object, std::string_view key);  // empty if absent
// A list of integers, or one integer as a list of one; empty if absent.
std::vector<std::int64_t> json_integers(const boost::json::object& object, std::string_view key, std::int64_t low, std::int64_t high);

}  // namespace lmkit
