// SPDX-License-Identifier: Apache-2.0
//
// PluginSpec: one --plugin argument.
//
//     name[:key=value[,key=value]…]        kv-int4:group=64
//     path[:key=value[,key=value]…]        ./my-kv.so:bits=3     (a path has a '/')
//
// In a path, the ':' before the settings is the first one that follows ".so" and precedes "key="; other ':' belong to the
// path. A value has no ','.
#pragma once

#include <lmkit/plugin/plugin_facts.hpp>
#include <lmkit/plugin/provider.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

struct PluginSpec {
  std::string name;  // as given, settings cut off
  std::vector<PluginSetting> settings;

  bool is_path() const noexcept { return name.find('/') != name.npos; }
};

// Throws Error(usage).
PluginSpec parse_plugin_spec(std::string_view text);

// The settings for create(): those given, checked, and the defaults of the others. Throws Error(plugin).
std::vector<PluginSetting> checked_settings(const PluginSpec& spec, const PluginFacts& facts);

}  // namespace lmkit
