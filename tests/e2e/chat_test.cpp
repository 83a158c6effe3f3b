// SPDX-License-Identifier: Apache-2.0
//
// lmkit chat on a terminal: editing keys, several turns, Ctrl-C and Ctrl-D.
#include "cli.hpp"
#include "terminal.hpp"

#include <catch.hpp>

using namespace lmkit::test;

namespace {

// Answers of a few tokens; or, as token 2 ends a turn and is forbidden, long ones.
std::vector<std::string> chat(bool endless = false) {
  if (endless) return {"chat", "--kv", "int4", "--logit-bias", "2:-1000"};
  return {"chat", "--kv", "int4", "-c", "512", "--max-tokens", "8"};
}

bool have_terminal() {
  const int terminal = posix_openpt(O_RDWR);
  if (terminal < 0) WARN("there is no /dev/ptmx here: nothing was tested");
  if (terminal >= 0) close(terminal);
  return terminal >= 0;
}

constexpr const char* program = LMKIT_TEST_BIN "/lmkit";
constexpr const char* prompt = "\n> ";  // at the start of a line

}  // namespace

TEST_CASE("chat: keys edit the line, in whole characters, and bring back earlier ones") {
  if (!have_model() || !have_terminal()) return;
  Terminal terminal(program, chat());
  terminal.until_editing(prompt);
  terminal.type(std::string("x/grüße 世") + key::backspace + key::backspace + key::line_start + key::delete_or_end + key::enter);
  CHECK_THAT(terminal.until_editing(prompt), Catch::Contains("unknown: /grüße; try /help"));
  terminal.type(std::string("/hlp") + key::left + key::left + "e" + key::enter);
  CHECK_THAT(terminal.until_editing(prompt), Catch::Contains("/reset"));
  terminal.type(std::string(key::up) + key::up + "n" + key::enter);
  CHECK_THAT(terminal.until_editing(prompt), Catch::Contains("unknown: /grüßen"));
  terminal.type(key::delete_or_end);
  CHECK(terminal.end() == 0);
}

TEST_CASE("chat: a conversation of several turns, which Ctrl-D ends") {
  if (!have_model() || !have_terminal()) return;
  Terminal terminal(program, chat());
  terminal.until_editing(prompt);
  for (const char* message : {"My name is Bob.", "What is my name?", "/reset", "Hello"}) {
    terminal.type(std::string(message) + key::enter);
    terminal.until("\r\n");  // its echo
    const std::string answer = terminal.until_editing("> ");
    if (*message != '/') CHECK(answer.size() > 4);
  }
  terminal.type(key::delete_or_end);
  CHECK(terminal.end() == 0);
}

TEST_CASE("chat: Ctrl-C stops an answer and the conversation goes on") {
  if (!have_model() || !have_terminal()) return;
  Terminal terminal(program, chat(true));
  terminal.until_editing(prompt);
  for (int turn = 0; turn < 2; ++turn) {
    terminal.type(std::string("Tell me a story.") + key::enter);
    terminal.until("story.\r\n");
    terminal.until(" ");  // of the answer
    terminal.type(key::interrupt);
    terminal.until_editing(prompt);
  }
  terminal.type(std::string("/help") + key::enter);
  CHECK_THAT(terminal.until_editing(prompt), Catch::Contains("/system"));
  terminal.type(key::delete_or_end);
  CHECK(terminal.end() == 0);
}

TEST_CASE("chat: Ctrl-C at the prompt drops the line, twice quits") {
  if (!have_model() || !have_terminal()) return;
  Terminal terminal(program, chat(true));
  terminal.until_editing(prompt);
  terminal.type("half a line");
  terminal.until("half a line");
  terminal.type(key::interrupt);
  terminal.until("Ctrl-C again quits");
  terminal.until_editing(prompt);
  terminal.type(std::string("/help") + key::enter);
  CHECK_THAT(terminal.until_editing(prompt), Catch::Contains("/system"));
  for (int time = 0; time < 2; ++time) {
    terminal.type(key::interrupt);
    if (time == 0) terminal.until_editing(prompt);
  }
  CHECK(terminal.end() == 130);
}

TEST_CASE("chat: Ctrl-C that stops an answer and Ctrl-C after it quit") {
  if (!have_model() || !have_terminal()) return;
  Terminal terminal(program, chat(true));
  terminal.until_editing(prompt);
  terminal.type(std::string("Tell me a story.") + key::enter);
  terminal.until("story.\r\n");
  terminal.until(" ");
  terminal.type(key::interrupt);
  terminal.until_editing(prompt);
  terminal.type(key::interrupt);
  CHECK(terminal.end() == 130);
}
