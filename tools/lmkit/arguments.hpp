// SPDX-License-Identifier: Apache-2.0
//
// Arguments: what the user asked of a command, checked against the option table.
//
// A value comes from the first place that has it: the command line, LMKIT_<NAME> (as in LMKIT_MODEL_PATH; values of a
// repeatable option are separated by ';', of plugin-path by ':'), lmkit.toml (a key at the top or in the command's table),
// the table's default. Of options that are spellings of one choice (--kv, --quant-policy, -ctk, …) the first place with any counts; so it does
// between a named plugin and an option about the same concept (composition.cpp).
// Everything here throws Error(usage).
#pragma once

#include "options.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit::cli {

// Where a value comes from, the strongest first.
enum class Place { command_line, environment, file, fallback };

class Arguments {
 public:
  // words: what follows the command's name
  static Arguments parse(Command command, const std::vector<std::string>& words);

  Command command() const noexcept { return command_; }
  const std::vector<std::string>& operands() const noexcept { return operands_; }

  bool given(std::string_view name) const { return given_.contains(name); }  // not by default
  Place place(std::string_view name) const;
  bool flag(std::string_view name) const { return text(name) == "true"; }
  std::string text(std::string_view name) const;  // "" when there is no value
  std::vector<std::string> texts(std::string_view name) const;  // of a repeatable option or a list
  std::optional<std::int64_t> whole(std::string_view name) const;
  std::vector<std::int64_t> wholes(std::string_view name) const;
  double number(std::string_view name) const;  // of an option with a default or a given one
  std::optional<std::int64_t> bytes(std::string_view name) const;

 private:
  using Values = std::map<std::string, std::vector<std::string>, std::less<>>;

  void add_defaults_from(const Values& source, Place place);

  Command command_{};
  std::vector<std::string> operands_;
  Values given_;
  std::map<std::string, Place, std::less<>> weaker_;  // places of what the command line does not give
};

// What lmkit.toml says for a command, by option name. An empty path is the user's own file, which may be missing.
std::map<std::string, std::vector<std::string>, std::less<>> read_config_file(const std::string& path, Command command);

// "24GiB", "500MB", "1073741824"
std::optional<std::int64_t> parse_bytes(std::string_view text);
std::vector<std::string> split(std::string_view text, char separator);

}  // namespace lmkit::cli
