// SPDX-License-Identifier: Apache-2.0
//
// PluginFacts: what a plugin says about itself, read from its ELF file without running any of its code.
#pragma once

#include <lmkit/abi/plugin.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

enum class OptionType { boolean = LMKIT_OPTION_BOOL, integer = LMKIT_OPTION_INT, number = LMKIT_OPTION_FLOAT, text = LMKIT_OPTION_STRING };

struct PluginOption {
  std::string name;
  std::string help;
  OptionType type = OptionType::text;
  std::optional<std::string> default_value;
  double minimum = 0, maximum = 0;   // inclusive; of integers and numbers
  std::vector<std::string> choices;  // of texts; empty: any
};

struct PluginFacts {
  std::filesystem::path file;
  std::string id, version, summary, licence;
  int abi_major = 0, abi_minor = 0;
  std::string compiler, cpu_isas, cuda_archs;
  std::vector<std::string> extensions;  // "lmkit.kv/1"
  std::vector<PluginOption> options;
};

// Reads the facts of a shared object for this machine. Throws Error(plugin) that names the file and says what was found
// instead: not ELF, another machine, no lmkit_plugin_entry, another ABI, a table that lies outside the file, …
PluginFacts read_plugin_facts(const std::filesystem::path& file);

// The same of bytes in memory; `name` stands for the file in errors.
PluginFacts parse_plugin_facts(std::span<const std::byte> elf, const std::string& name);

// "a whole number from 1 to 64", "one of hadamard, none", …: what an option takes.
std::string allowed_values(const PluginOption& option);

// The spelling of `value` that create() is given. Throws Error(plugin) when it is not among allowed_values.
std::string checked_option_value(std::string_view plugin, const PluginOption& option, std::string_view value);

}  // namespace lmkit
