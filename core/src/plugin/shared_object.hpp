// SPDX-License-Identifier: Apache-2.0
//
// The one place where a plugin's library is loaded. From here on its code has run.
#pragma once

#include <lmkit/abi/plugin.h>
#include <lmkit/plugin/plugin_facts.hpp>

namespace lmkit {

// Loads facts.file, with all its symbols bound and none of them visible to others, and keeps it for the life of the
// process. Throws Error(plugin) when the dynamic loader refuses it or the entry is not what the file said.
const lmkit_plugin* load_plugin_entry(const PluginFacts& facts);

}  // namespace lmkit
