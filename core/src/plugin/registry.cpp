// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/registry.hpp>

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>

#include "shared_object.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>

namespace lmkit {

namespace fs = std::filesystem;

namespace {

constexpr const char* suffix = ".so";

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::vector<fs::path> plugin_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().extension() == suffix) files.push_back(entry->path());
  std::sort(files.begin(), files.end());
  return files;
}

// What a name that no folder has could have meant.
std::string remedy_for(const std::string& name, const std::vector<fs::path>& folders) {
  const bool has_suffix = fs::path(name).extension() == suffix;
  const std::string file = has_suffix ? name : name + suffix;
  if (is_file(file)) return fmt::format("./{} if you mean the file in the current directory", file);
  std::set<std::string> names;
  for (const fs::path& folder : folders)
    for (const fs::path& found : plugin_files(folder)) names.insert(found.stem());
  const std::string nearest = did_you_mean(has_suffix ? fs::path(name).stem().string() : name, names);
  if (!nearest.empty()) return fmt::format("--plugin {}", nearest);
  return names.empty() ? "--plugin-path with the folder of your plugins" : fmt::format("one of {}", fmt::join(names, ", "));
}

template <class Source>
void take(std::optional<Source>& slot, std::optional<Source> source) {
  if (source) slot = std::move(source);
}

}  // namespace

std::vector<fs::path> plugin_search_path(std::span<const std::string> first, std::span<const std::string> later) {
  std::vector<fs::path> folders;
  const auto add = [&](std::string_view folder) {
    if (!folder.empty()) folders.emplace_back(folder);  // an empty entry is not the current directory
  };
  for (const std::string& folder : first) add(folder);
  if (const char* variable = std::getenv("LMKIT_PLUGIN_PATH")) {
    std::string_view rest = variable;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(':'), rest.size());
      add(rest.substr(0, end));
      rest.remove_prefix(std::min(rest.size(), end + 1));
    }
  }
  for (const std::string& folder : later) add(folder);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(program.parent_path().parent_path() / "lib" / "lmkit" / "plugins");
  return folders;
}

std::vector<FoundPlugin> PluginRegistry::list() const {
  std::vector<FoundPlugin> plugins;
  std::set<std::string> names;
  for (const fs::path& folder : folders_) {
    for (const fs::path& file : plugin_files(folder)) {
      FoundPlugin plugin{.file = file, .name = file.stem(), .facts = {}, .problem = {}};
      plugin.shadowed = !names.insert(plugin.name).second;
      try {
        plugin.facts = read_plugin_facts(file);
      } catch (const Error& error) {
        plugin.problem = error.what();
      }
      plugins.push_back(std::move(plugin));
    }
  }
  return plugins;
}

fs::path PluginRegistry::locate(const PluginSpec& spec) const {
  if (spec.is_path()) {
    if (is_file(spec.name)) return fs::absolute(spec.name).lexically_normal();
    std::error_code error;
    if (fs::exists(spec.name, error)) throw Error(ErrorKind::plugin, fmt::format("{} is not a file", spec.name), "a shared object (.so)");
    const bool suffix_lacks = is_file(spec.name + suffix);
    throw Error(ErrorKind::plugin, fmt::format("there is no file {}", spec.name), {}, suffix_lacks ? spec.name + suffix : "");
  }
  for (const fs::path& folder : folders_)
    if (const fs::path file = folder / (spec.name + suffix); is_file(file)) return fs::absolute(file).lexically_normal();
  std::vector<std::string> searched;
  for (const fs::path& folder : folders_) searched.push_back(folder.string());
  throw Error(ErrorKind::plugin, fmt::format("there is no plugin '{}' in {}", spec.name, fmt::join(searched, ", ")), {},
              remedy_for(spec.name, folders_));
}

LoadedPlugin PluginRegistry::load(const PluginSpec& spec) const {
  PluginFacts facts = inspect(spec);
  std::vector<PluginSetting> settings = checked_settings(spec, facts);
  const lmkit_plugin* entry = load_plugin_entry(facts);
  return {std::move(facts), std::move(settings), entry};
}

Composition PluginRegistry::compose(std::span<const PluginSpec> specs) const {
  std::map<std::string, std::string> provider_of;  // extension -> plugin
  for (const PluginSpec& spec : specs) {
    const PluginFacts facts = inspect(spec);
    checked_settings(spec, facts);
    for (const std::string& extension : facts.extensions)
      if (const auto [other, is_new] = provider_of.emplace(extension, spec.name); !is_new)
        throw Error(ErrorKind::plugin, fmt::format("{} and {} both provide {}", other->second, spec.name, extension), "one plugin for each concept",
                    "leaving one of them out");
  }
  Composition composition;
  for (const PluginSpec& spec : specs) {
    const LoadedPlugin plugin = load(spec);
    take(composition.parallel, plugin.parallel());
    take(composition.kv, plugin.kv());
    take(composition.allocator, plugin.allocator());
    composition.plugins.push_back(plugin.facts());
  }
  return composition;
}

}  // namespace lmkit
