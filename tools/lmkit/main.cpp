// SPDX-License-Identifier: Apache-2.0
//
// lmkit: finds the command, parses its options, runs it, and turns what it throws into a message and an exit code.
#include "commands.hpp"
#include "help.hpp"
#include "terminal.hpp"

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/base/log.hpp>

#include <fmt/format.h>

#include <csignal>
#include <new>
#include <string>
#include <vector>

namespace lmkit::cli {
namespace {

int help_command(const Arguments& arguments) {
  if (arguments.flag("markdown")) {
    print(manual_in_markdown());
  } else if (arguments.given("completion")) {
    print(completion_for(arguments.text("completion")));
  } else if (arguments.operands().empty()) {
    print(overview());
  } else {
    const CommandInfo* command = find_command(arguments.operands().front());
    if (!command)
      throw Error(ErrorKind::usage, fmt::format("no help on '{}': unknown command", arguments.operands().front()), {}, "lmkit help");
    print(help_of(*command));
  }
  return 0;
}

int call(const Arguments& arguments) {
  switch (arguments.command()) {
    case run: return run_command(arguments);
    case chat: return chat_command(arguments);
    case bench: return bench_command(arguments);
    case plan: return plan_command(arguments);
    case plugin: return plugin_command(arguments);
    case eval: return eval_command(arguments);
    case doctor: return doctor_command(arguments);
    case help: return help_command(arguments);
  }
  return 2;
}

const CommandInfo& named_command(const std::string& name) {
  if (const CommandInfo* command = find_command(name)) return *command;
  std::vector<std::string> names;
  for (const CommandInfo& command : commands()) names.emplace_back(command.name);
  const bool option = name.starts_with('-');
  const std::string near = did_you_mean(name, names);
  if (option) throw Error(ErrorKind::usage, fmt::format("option '{}' before the command", name), {}, fmt::format("lmkit run {} …", name));
  throw Error(ErrorKind::usage, fmt::format("unknown command '{}'", name), {}, near.empty() ? "lmkit help" : "lmkit " + near);
}

void log_to_stderr(LogLevel level, std::string_view text) {
  switch (level) {
    case LogLevel::debug:
    case LogLevel::info: break;
    case LogLevel::warning: say(tinted(Tint::warning, "warning: ") + std::string(text)); break;
    case LogLevel::error: say(tinted(Tint::error, "error: ") + std::string(text)); break;
  }
}

int dispatch(const std::vector<std::string>& words) {
  if (words.empty()) {
    std::fputs(overview().c_str(), stderr);
    return static_cast<int>(ErrorKind::usage);
  }
  if (words[0] == "--version" || words[0] == "-V") {
    print("lmkit " LMKIT_VERSION "\n");
    return 0;
  }
  if (words[0] == "--help" || words[0] == "-h") {
    print(overview());
    return 0;
  }
  const CommandInfo& command = named_command(words[0]);
  const Arguments arguments = Arguments::parse(command.id, {words.begin() + 1, words.end()});
  if (arguments.flag("help")) {
    print(help_of(command));
    return 0;
  }
  return call(arguments);
}

}  // namespace

int main(const std::vector<std::string>& words) {
  set_log_sink(log_to_stderr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed stdout is an error like any other
  const auto failed = [](std::string_view what, ErrorKind kind) {
    end_progress();
    say(tinted(Tint::error, "error: ") + std::string(what));
    return static_cast<int>(kind);
  };
  try {
    return dispatch(words);
  } catch (const Error& error) {
    return failed(error.what(), error.kind());
  } catch (const std::bad_alloc&) {
    return failed("out of memory", ErrorKind::memory);
  } catch (const std::exception& error) {
    return failed(error.what(), ErrorKind::runtime);
  }
}

}  // namespace lmkit::cli

int main(int count, char** words) { return lmkit::cli::main({words + 1, words + count}); }
