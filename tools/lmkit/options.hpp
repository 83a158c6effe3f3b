// SPDX-License-Identifier: Apache-2.0
//
// The one option table: parser, help, shell completion, lmkit.toml, LMKIT_* variables and the manual all come from it.
#pragma once

#include <span>
#include <string_view>

namespace lmkit::cli {

enum Command : unsigned { run = 1, chat = 2, bench = 4, plan = 8, plugin = 16, eval = 32, doctor = 64, help = 128 };
inline constexpr unsigned engine_commands = run | chat | bench | plan | eval;  // those that compose a pipeline

struct CommandInfo {
  Command id;
  const char* name;
  const char* operands;  // as in "lmkit plugin <operands>"
  const char* summary;
  const char* details;
  const char* words;  // operands to choose from, "list|inspect"; null: free text
};

enum class Kind {
  flag,    // no value
  text,
  whole,   // an integer in [minimum, maximum]
  number,  // in [minimum, maximum]
  size,    // bytes: 24GiB, 500MB, 1073741824
  choice,  // one of `choices`
  list,    // comma-separated, each one of `choices`
  wholes,  // comma-separated integers in [minimum, maximum]
};

enum class Section { model, pipeline, sampling, output, measuring, other };

struct Option {
  const char* name;  // without dashes
  char letter = 0;
  bool one_dash = false;  // -ctk as well as --ctk
  Kind kind = Kind::text;
  const char* value = nullptr;  // what help calls the value
  Section section = Section::other;
  unsigned commands = 0;
  const char* help = "";
  const char* fallback = nullptr;  // the default, as one would write it
  double minimum = 0, maximum = 1e15;
  bool above_minimum = false, below_maximum = false;  // the minimum, the maximum itself is refused
  const char* choices = nullptr;
  bool repeatable = false;
  const char* same_as = nullptr;  // another spelling of that option
  const char* decides = nullptr;  // what several options are spellings for: "kv"
  const char* refused = nullptr;  // known from another program, with another meaning: the hint
};

std::span<const CommandInfo> commands();
std::span<const Option> options();

const CommandInfo* find_command(std::string_view name);
const CommandInfo& info_of(Command command);
const Option* find_option(std::string_view name);

}  // namespace lmkit::cli
