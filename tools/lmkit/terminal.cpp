// SPDX-License-Identifier: Apache-2.0
#include "terminal.hpp"

#include <lmkit/base/error.hpp>

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace lmkit::cli {
namespace {

std::atomic<int> interrupt_count{0};
int interrupt_event = -1;  // readable from a Ctrl-C on: a wait sees it, however short before it came

extern "C" void count_interrupt(int) {
  if (interrupt_count.fetch_add(1) >= 2) _exit(interrupted_exit_code);
  const int before = errno;
  eventfd_write(interrupt_event, 1);
  errno = before;
}

constexpr const char* erase_line = "\r\x1b[K";

}  // namespace

bool stdin_is_terminal() { return isatty(STDIN_FILENO); }
bool stderr_is_terminal() { return isatty(STDERR_FILENO); }

std::string tinted(Tint tint, std::string_view text) {
  const char* no_color = std::getenv("NO_COLOR");
  if (!stderr_is_terminal() || (no_color && *no_color)) return std::string(text);
  const char* code = "";
  switch (tint) {
    case Tint::error: code = "1;31"; break;
    case Tint::warning: code = "33"; break;
    case Tint::note: code = "2"; break;
    case Tint::good: code = "32"; break;
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(ErrorKind::runtime, fmt::format("cannot write to stdout: {}", std::strerror(errno)));
}

void say(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fputc('\n', stderr);
}

Waiting::Waiting(std::string what) {
  if (!stderr_is_terminal()) return;
  thread_ = std::jthread([what = std::move(what)](std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex);
    bool shown = false;
    while (!wake.wait_for(lock, stop, std::chrono::milliseconds(500), [&] { return stop.stop_requested(); })) {
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      progress(fmt::format("{} … {:.1f} s", what, elapsed.count()));
      shown = true;
    }
    if (shown) end_progress();
  });
}

Waiting::~Waiting() = default;

void progress(std::string_view text) {
  if (!stderr_is_terminal()) return;
  fmt::print(stderr, "{}{}", erase_line, tinted(Tint::note, text));
  std::fflush(stderr);
}

void end_progress() {
  if (stderr_is_terminal()) fmt::print(stderr, "{}", erase_line);
}

void catch_interrupts() {
  if (interrupt_event < 0) interrupt_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  struct sigaction action {};
  action.sa_handler = count_interrupt;  // without SA_RESTART: a blocked read returns
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

int interrupts() { return interrupt_count.load(); }

void forget_interrupts() {
  interrupt_count = 0;
  eventfd_t ignored;
  eventfd_read(interrupt_event, &ignored);
}

bool wait_for_key() {
  pollfd ready[] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_event, POLLIN, 0}};
  while (poll(ready, 2, -1) < 0 && errno == EINTR) {
  }
  return ready[1].revents == 0;
}

std::string bytes_for_people(std::int64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

std::string count_for_people(std::int64_t count) {
  if (count >= 10'000'000) return fmt::format("{}M", count / 1'000'000);
  return count >= 10'000 ? fmt::format("{}k", count / 1000) : fmt::format("{}", count);
}

}  // namespace lmkit::cli
