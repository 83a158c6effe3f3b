// SPDX-License-Identifier: Apache-2.0
//
// Provider<Table>: where an Any… object comes from: a table of the ABI (a plugin's, or one made of a built-in type), the
// name under which the user knows it, and the settings it was given. A plain value; the table's code is never unloaded.
#pragma once

#include <lmkit/abi/plugin.h>
#include <lmkit/base/error.hpp>

#include <string>
#include <vector>

namespace lmkit {

struct PluginSetting {
  std::string name;
  std::string value;
};

template <class Table>
struct Provider {
  Table table{};     // a copy; slots this host does not know are dropped
  std::string name;  // "kv-int4", or the built-in's "kv-f16"
  std::vector<PluginSetting> settings;

  // Views `settings`; valid while they live.
  std::vector<lmkit_setting> abi_settings() const {
    std::vector<lmkit_setting> views;
    for (const PluginSetting& setting : settings) views.push_back({setting.name.c_str(), setting.value.c_str()});
    return views;
  }
};

// A slot failed at set-up: throws Error(plugin) with the reason the plugin gave on this thread.
[[noreturn]] void throw_refusal(const std::string& plugin, lmkit_status status, const char* what);

}  // namespace lmkit
