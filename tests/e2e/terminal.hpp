// SPDX-License-Identifier: Apache-2.0
//
// Runs a program on a terminal of its own, as a person would: types keys, reads what appears.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace lmkit::test {

namespace key {
inline constexpr const char* enter = "\r";
inline constexpr const char* up = "\x1b[A";
inline constexpr const char* left = "\x1b[D";
inline constexpr const char* backspace = "\x7f";
inline constexpr const char* line_start = "\x01";     // Ctrl-A
inline constexpr const char* delete_or_end = "\x04";  // Ctrl-D
inline constexpr const char* interrupt = "\x03";      // Ctrl-C
}  // namespace key

class Terminal {
 public:
  Terminal(const std::string& program, const std::vector<std::string>& words) {
    child_ = forkpty(&screen_, nullptr, nullptr, nullptr);
    if (child_ < 0) throw std::runtime_error("forkpty failed");
    if (child_ > 0) return;
    setenv("TERM", "xterm", 1);
    setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  ~Terminal() {
    close(screen_);
    if (child_ > 0) kill(child_, SIGKILL), waitpid(child_, nullptr, 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const std::string& keys) {
    if (write(screen_, keys.data(), keys.size()) != static_cast<ssize_t>(keys.size())) throw std::runtime_error("cannot type");
  }

  // What appeared since the last call, up to and including `text`; throws after minutes in which it did not.
  std::string until(const std::string& text) {
    const auto patience = std::chrono::steady_clock::now() + std::chrono::minutes(5);
    std::size_t at;
    while ((at = seen_.find(text)) == seen_.npos) {
      if (!read_more() || std::chrono::steady_clock::now() > patience)
        throw std::runtime_error("waited for '" + text + "', saw '" + seen_ + "'");
    }
    std::string part = seen_.substr(0, at + text.size());
    seen_.erase(0, part.size());
    return part;
  }

  // until(text), and then until the program takes single keys: what is typed before would appear twice.
  std::string until_editing(const std::string& text) {
    std::string part = until(text);
    for (termios mode; tcgetattr(screen_, &mode) == 0 && (mode.c_lflag & ICANON);) usleep(1000);
    return part;
  }

  // Waits for the end; the exit code, or 128 + signal.
  int end() {
    while (read_more()) {
    }
    int status = 0;
    while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  // False: nobody writes any more.
  bool read_more() {
    pollfd ready{screen_, POLLIN, 0};
    if (poll(&ready, 1, 1000) <= 0) return true;
    char bytes[4096];
    const ssize_t count = read(screen_, bytes, sizeof bytes);
    if (count > 0) seen_.append(bytes, static_cast<std::size_t>(count));
    return count > 0;
  }

  pid_t child_ = 0;
  int screen_ = -1;
  std::string seen_;
};

}  // namespace lmkit::test
