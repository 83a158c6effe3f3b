// SPDX-License-Identifier: Apache-2.0
//
// The registry: finds plugins in their folders, reads their facts, and loads those that were asked for.
//
//     PluginRegistry registry(plugin_search_path(flags));
//     for (const FoundPlugin& plugin : registry.list()) …                        // runs no plugin code
//     Composition parts = registry.compose({parse_plugin_spec("kv-int4:rotate=false")});
//     Pipeline<AnyParallel, AnyKvBackend, AnyAllocator> pipeline(model, …);
//
// A loaded library stays for the life of the process. [load-time]
#pragma once

#include <lmkit/plugin/any_allocator.hpp>
#include <lmkit/plugin/any_kv_backend.hpp>
#include <lmkit/plugin/any_parallel.hpp>
#include <lmkit/plugin/plugin_facts.hpp>
#include <lmkit/plugin/plugin_spec.hpp>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lmkit {

// Folders in the order of precedence: `first` (--plugin-path), then LMKIT_PLUGIN_PATH (separated by ':'), then `later` (a
// file of defaults), then <exe>/../lib/lmkit/plugins. The current directory is never one of them unless it was named.
std::vector<std::filesystem::path> plugin_search_path(std::span<const std::string> first = {}, std::span<const std::string> later = {});

struct FoundPlugin {
  std::filesystem::path file;
  std::string name;                  // what --plugin takes
  std::optional<PluginFacts> facts;  // or else
  std::string problem;               // why it would be refused
  bool shadowed = false;             // a folder before this one has a plugin of that name
};

class LoadedPlugin {
 public:
  LoadedPlugin(PluginFacts facts, std::vector<PluginSetting> settings, const lmkit_plugin* entry);

  const PluginFacts& facts() const noexcept { return facts_; }
  const std::vector<PluginSetting>& settings() const noexcept { return settings_; }

  // The table of a concept with the settings of this plugin; nothing if it does not serve the concept. Throws
  // Error(plugin) when the table is older than ABI 1.0 allows or lacks a slot.
  std::optional<AnyKvBackend::Source> kv() const;
  std::optional<AnyParallel::Source> parallel() const;
  std::optional<AnyAllocator::Source> allocator() const;

 private:
  template <class Table>
  std::optional<Provider<Table>> provider(const char* extension, std::size_t size_1_0) const;

  PluginFacts facts_;
  std::vector<PluginSetting> settings_;  // defaults included
  const lmkit_plugin* entry_;
};

// What a set of plugins provides; the built-in stands in for what is not there.
struct Composition {
  std::optional<AnyParallel::Source> parallel;
  std::optional<AnyKvBackend::Source> kv;
  std::optional<AnyAllocator::Source> allocator;
  std::vector<PluginFacts> plugins;
};

class PluginRegistry {
 public:
  explicit PluginRegistry(std::vector<std::filesystem::path> folders) : folders_(std::move(folders)) {}

  // Every *.so of the folders, by folder and name; folders that do not exist have none.
  std::vector<FoundPlugin> list() const;

  // The file that a spec's name or path stands for. Throws Error(plugin), with the nearest name if there is one.
  std::filesystem::path locate(const PluginSpec& spec) const;

  PluginFacts inspect(const PluginSpec& spec) const { return read_plugin_facts(locate(spec)); }

  // Reads facts, checks settings, and only then runs the library's code. Throws Error(plugin).
  LoadedPlugin load(const PluginSpec& spec) const;

  // Loads all; two plugins for one concept throw Error(plugin) that names both, before any code runs.
  Composition compose(std::span<const PluginSpec> specs) const;

 private:
  std::vector<std::filesystem::path> folders_;
};

}  // namespace lmkit
