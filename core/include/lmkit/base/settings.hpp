// SPDX-License-Identifier: Apache-2.0
//
// Settings: a plugin's options as create() receives them, already checked by the host against what the plugin published.
// Views the caller's array; owns nothing.
#pragma once

#include <lmkit/abi/plugin.h>

#include <charconv>
#include <cstdint>
#include <string_view>

namespace lmkit {

struct Settings {
  const lmkit_setting* values = nullptr;
  std::int32_t count = 0;

  // Null when the option was not given and has no default.
  const char* find(std::string_view name) const noexcept {
    for (std::int32_t i = 0; i < count; ++i)
      if (name == values[i].name) return values[i].value;
    return nullptr;
  }

  bool has(std::string_view name) const noexcept { return find(name) != nullptr; }

  std::int64_t integer(std::string_view name, std::int64_t fallback) const noexcept { return parsed(find(name), fallback); }
  double number(std::string_view name, double fallback) const noexcept { return parsed(find(name), fallback); }

  bool flag(std::string_view name, bool fallback) const noexcept {
    const char* value = find(name);
    return value ? std::string_view(value) == "true" : fallback;
  }

  std::string_view text(std::string_view name, std::string_view fallback) const noexcept {
    const char* value = find(name);
    return value ? std::string_view(value) : fallback;
  }

 private:
  // Not strtod, which follows the locale.
  template <class Number>
  static Number parsed(const char* value, Number fallback) noexcept {
    if (value) std::from_chars(value, value + std::string_view(value).size(), fallback);
    return fallback;
  }
};

}  // namespace lmkit
