// SPDX-License-Identifier: Apache-2.0
//
// What the option table says to people and shells.
#pragma once

#include "options.hpp"

#include <string>

namespace lmkit::cli {

std::string overview();                         // "lmkit help"
std::string help_of(const CommandInfo& command);  // "lmkit help run"
std::string manual_in_markdown();
std::string completion_for(std::string_view shell);  // bash, zsh or fish

}  // namespace lmkit::cli
