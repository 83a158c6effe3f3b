// SPDX-License-Identifier: Apache-2.0
//
// Logging facade: core and plugins name a level and a text; the program decides where it goes (stderr, never stdout).
#pragma once

#include <string_view>

namespace lmkit {

enum class LogLevel { debug, info, warning, error };

using LogSink = void (*)(LogLevel level, std::string_view text);

// Set once at start; until then warnings and errors go to stderr. [load-time]
void set_log_sink(LogSink sink) noexcept;
void log(LogLevel level, std::string_view text);  // [any-thread]

}  // namespace lmkit
