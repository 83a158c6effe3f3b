// SPDX-License-Identifier: Apache-2.0
//
// Any text as a --plugin argument: a name and settings that the plugin's options allow, or Error.
#include <lmkit/base/error.hpp>
#include <lmkit/plugin/plugin_spec.hpp>

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

lmkit::PluginFacts facts() {
  using lmkit::OptionType;
  lmkit::PluginFacts facts;
  facts.id = "demo";
  facts.options = {{"size", "", OptionType::integer, "2", 1, 64, {}},
                   {"ratio", "", OptionType::number, {}, 0, 1, {}},
                   {"rotate", "", OptionType::boolean, "true", 0, 0, {}},
                   {"mode", "", OptionType::text, {}, 0, 0, {"hadamard", "none"}},
                   {"file", "", OptionType::text, {}, 0, 0, {}}};
  return facts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const lmkit::PluginFacts demo = facts();
  try {
    const lmkit::PluginSpec spec = lmkit::parse_plugin_spec({reinterpret_cast<const char*>(data), size});
    if (spec.name.empty()) std::abort();
    const auto settings = lmkit::checked_settings(spec, demo);
    if (settings.size() < spec.settings.size()) std::abort();
  } catch (const lmkit::Error& error) {
    if (error.kind() != lmkit::ErrorKind::plugin && error.kind() != lmkit::ErrorKind::usage) std::abort();
  }
  return 0;
}
