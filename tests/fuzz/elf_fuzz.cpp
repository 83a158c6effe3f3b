// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a plugin's file: facts, or Error(plugin).
#include <lmkit/base/error.hpp>
#include <lmkit/plugin/plugin_facts.hpp>

#include <cstdint>
#include <cstdlib>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const lmkit::PluginFacts facts = lmkit::parse_plugin_facts(std::as_bytes(std::span(data, size)), "fuzzed.so");
    if (facts.id.empty() || facts.extensions.empty()) std::abort();
  } catch (const lmkit::Error& error) {
    if (error.kind() != lmkit::ErrorKind::plugin) std::abort();
  }
  return 0;
}
