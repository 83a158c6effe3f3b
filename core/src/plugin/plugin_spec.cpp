// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/plugin_spec.hpp>

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>

#include "printable.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace lmkit {
namespace {

constexpr std::size_t longest_spec = 4096;

[[noreturn]] void malformed(std::string_view text, const std::string& found) {
  throw Error(ErrorKind::usage, fmt::format("--plugin '{}': {}", text, found), "name:key=value,key=value or ./path.so:key=value");
}

bool starts_with_key(std::string_view text) {
  const std::size_t equals = text.find('=');
  return equals != 0 && equals != text.npos && std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(equals), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

// Where the settings' ':' stands, or npos.
std::size_t end_of_name(std::string_view text) {
  const std::size_t first_colon = text.find(':');
  if (text.substr(0, text.find('=')).find('/') == text.npos) return first_colon;
  constexpr std::string_view suffix = ".so:";
  for (std::size_t at = text.find(suffix); at != text.npos; at = text.find(suffix, at + 1))
    if (starts_with_key(text.substr(at + suffix.size()))) return at + suffix.size() - 1;
  if (text.ends_with(".so")) return text.npos;
  const std::size_t last_colon = text.rfind(':');
  return last_colon != text.npos && text.find('/', last_colon) == text.npos ? last_colon : text.npos;
}

std::vector<PluginSetting> parse_settings(std::string_view whole, std::string_view text) {
  std::vector<PluginSetting> settings;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const std::size_t equals = part.find('=');
    if (part.empty()) malformed(whole, "a setting is empty");
    if (equals == part.npos) malformed(whole, fmt::format("'{}' has no '='", part));
    if (equals == 0) malformed(whole, fmt::format("'{}' has no key", part));
    settings.push_back({std::string(part.substr(0, equals)), std::string(part.substr(equals + 1))});
    begin = end + 1;
  }
  return settings;
}

template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

std::vector<std::string> names_of(const std::vector<PluginOption>& options) {
  std::vector<std::string> names;
  for (const PluginOption& option : options) names.push_back(option.name);
  return names;
}

const PluginOption& find_option(const PluginFacts& facts, const std::string& name) {
  const auto found = std::find_if(facts.options.begin(), facts.options.end(), [&](const PluginOption& o) { return o.name == name; });
  if (found != facts.options.end()) return *found;
  if (facts.options.empty()) throw Error(ErrorKind::plugin, fmt::format("{} has no option '{}'; it takes none", facts.id, name));
  const std::vector<std::string> names = names_of(facts.options);
  const std::string hint = did_you_mean_hint(name, names);
  throw Error(ErrorKind::plugin, fmt::format("{} has no option '{}'{}", facts.id, name, hint.empty() ? "" : "; " + hint),
              fmt::format("one of {}", fmt::join(names, ", ")));
}

}  // namespace

PluginSpec parse_plugin_spec(std::string_view text) {
  if (text.size() > longest_spec) malformed(text.substr(0, 40), fmt::format("it is {} bytes long", text.size()));
  if (!is_printable_utf8(text)) throw Error(ErrorKind::usage, "--plugin: its argument is not printable UTF-8");
  const std::size_t end = end_of_name(text);
  PluginSpec spec{std::string(text.substr(0, end)), {}};
  if (spec.name.empty()) malformed(text, "it names no plugin");
  if (end != text.npos) spec.settings = parse_settings(text, text.substr(end + 1));
  return spec;
}

std::string allowed_values(const PluginOption& option) {
  switch (option.type) {
    case OptionType::boolean: return "true or false";
    case OptionType::integer: return fmt::format("a whole number from {:.0f} to {:.0f}", option.minimum, option.maximum);
    case OptionType::number: return fmt::format("a number from {} to {}", option.minimum, option.maximum);
    case OptionType::text: return option.choices.empty() ? "a text" : fmt::format("one of {}", fmt::join(option.choices, ", "));
  }
  return {};
}

std::string checked_option_value(std::string_view plugin, const PluginOption& option, std::string_view value) {
  const auto refuse = [&](std::string_view why) {
    throw Error(ErrorKind::plugin, fmt::format("{}: {}={} {}", plugin, option.name, value, why), allowed_values(option));
  };
  switch (option.type) {
    case OptionType::boolean: {
      if (value == "true" || value == "on" || value == "yes" || value == "1") return "true";
      if (value == "false" || value == "off" || value == "no" || value == "0") return "false";
      refuse("is neither true nor false");
      break;
    }
    case OptionType::integer: {
      std::int64_t number = 0;
      if (!parse_number(value, number)) refuse("is not a whole number");
      if (static_cast<double>(number) < option.minimum || static_cast<double>(number) > option.maximum) refuse("is out of range");
      return std::to_string(number);
    }
    case OptionType::number: {
      double number = 0;
      if (!parse_number(value, number) || !std::isfinite(number)) refuse("is not a number");
      if (number < option.minimum || number > option.maximum) refuse("is out of range");
      return fmt::format("{}", number);
    }
    case OptionType::text: {
      const bool known = option.choices.empty() || std::find(option.choices.begin(), option.choices.end(), value) != option.choices.end();
      if (known) return std::string(value);
      const std::string hint = did_you_mean_hint(value, option.choices);
      refuse(hint.empty() ? "is not a choice" : "is not a choice; " + hint);
    }
  }
  return {};
}

std::vector<PluginSetting> checked_settings(const PluginSpec& spec, const PluginFacts& facts) {
  std::vector<PluginSetting> settings;
  const auto has = [&](const std::string& name) {
    return std::any_of(settings.begin(), settings.end(), [&](const PluginSetting& setting) { return setting.name == name; });
  };
  for (const PluginSetting& given : spec.settings) {
    const PluginOption& option = find_option(facts, given.name);
    if (has(given.name)) throw Error(ErrorKind::plugin, fmt::format("{}: {} is given twice", facts.id, given.name));
    settings.push_back({given.name, checked_option_value(facts.id, option, given.value)});
  }
  for (const PluginOption& option : facts.options)
    if (option.default_value && !has(option.name)) settings.push_back({option.name, *option.default_value});
  return settings;
}

}  // namespace lmkit
