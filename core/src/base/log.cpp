// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/log.hpp>

#include <atomic>
#include <cstdio>

namespace lmkit {
namespace {

void write_to_stderr(LogLevel level, std::string_view text) {
  if (level < LogLevel::warning) return;
  std::fprintf(stderr, "%s: %.*s\n", level == LogLevel::warning ? "warning" : "error", static_cast<int>(text.size()), text.data());
}

std::atomic<LogSink> sink{write_to_stderr};

}  // namespace

void set_log_sink(LogSink new_sink) noexcept { sink = new_sink; }
void log(LogLevel level, std::string_view text) { sink.load()(level, text); }

}  // namespace lmkit
