// SPDX-License-Identifier: Apache-2.0
#include "shared_object.hpp"

#include <lmkit/base/error.hpp>

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>
#include <fmt/core.h>

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {
namespace {

// Never destroyed: threads and tables may use a plugin until the very end.
const lmkit_plugin& loaded_entry(const PluginFacts& facts) {
  static auto& libraries = *new std::vector<boost::dll::shared_library>;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  using boost::dll::load_mode::type;
  constexpr type mode = boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local;
  const auto& library = libraries.emplace_back(std::filesystem::absolute(facts.file), mode);
  return library.get<const lmkit_plugin>(LMKIT_PLUGIN_SYMBOL);
}

// The dynamic loader's own words, out of Boost.DLL's "load() failed (dlerror system message: …): …".
std::string reason_of(std::string_view what) {
  constexpr std::string_view marker = "dlerror system message: ";
  const std::size_t begin = what.find(marker), end = what.rfind(')');
  if (begin == what.npos || end == what.npos || end < begin) return std::string(what);
  return std::string(what.substr(begin + marker.size(), end - begin - marker.size()));
}

}  // namespace

const lmkit_plugin* load_plugin_entry(const PluginFacts& facts) try {
  const lmkit_plugin& entry = loaded_entry(facts);
  if (entry.abi_major != facts.abi_major || entry.abi_minor != facts.abi_minor || entry.id == nullptr || entry.id != std::string_view(facts.id))
    throw Error(ErrorKind::plugin, fmt::format("{}: once loaded, it is no longer the plugin that its file describes", facts.file.string()));
  return &entry;
} catch (const boost::dll::fs::system_error& error) {
  throw Error(ErrorKind::plugin, fmt::format("{} cannot be loaded: {}", facts.id, reason_of(error.what())), {}, "building it again for this machine");
}

}  // namespace lmkit
