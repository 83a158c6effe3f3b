// SPDX-License-Identifier: Apache-2.0
//
// The user's terminal: data on stdout, everything else on stderr, colour and progress only where a person looks.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

namespace lmkit::cli {

bool stdin_is_terminal();
bool stderr_is_terminal();

// Text in a colour when stderr is a terminal and NO_COLOR is not set.
enum class Tint { error, warning, note, good };
std::string tinted(Tint tint, std::string_view text);

void print(std::string_view text);  // to stdout, at once; throws Error(runtime) when nobody can receive it
void say(std::string_view text);    // a line to stderr

// Says on a terminal what is being waited for and for how long, from half a second on.
class Waiting {
 public:
  explicit Waiting(std::string what);
  ~Waiting();

 private:
  std::jthread thread_;
};

// A line that is rewritten on a terminal and not shown elsewhere.
void progress(std::string_view text);
void end_progress();

// Ctrl-C. Counted, so that a command can stop an answer at the first and itself at the second; a third ends the process.
void catch_interrupts();
int interrupts();
void forget_interrupts();
bool wait_for_key();  // false: Ctrl-C came first, or before
inline constexpr int interrupted_exit_code = 130;

std::string bytes_for_people(std::int64_t bytes);  // "6.3 GiB"
std::string count_for_people(std::int64_t count);  // "197k"

}  // namespace lmkit::cli
