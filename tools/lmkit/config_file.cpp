// SPDX-License-Identifier: Apache-2.0
//
// lmkit.toml: the user's defaults. Keys are option names; a table named after a command holds for that command alone.
//     threads = 2
//     plugin = ["kv-int4", "mem-ratio:ratio=0.5"]
//     [chat]
//     temperature = 0.7
#include "arguments.hpp"

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>

#include <fmt/format.h>
#include <toml++/toml.h>

#include <cstdlib>
#include <filesystem>

namespace lmkit::cli {
namespace {

using Values = std::map<std::string, std::vector<std::string>, std::less<>>;

std::filesystem::path user_file() {
  if (const char* folder = std::getenv("XDG_CONFIG_HOME"); folder && *folder) return std::filesystem::path(folder) / "lmkit/lmkit.toml";
  if (const char* home = std::getenv("HOME"); home && *home) return std::filesystem::path(home) / ".config/lmkit/lmkit.toml";
  return {};
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what, std::string remedy = {}) {
  throw Error(ErrorKind::usage, fmt::format("{}: {}", file.string(), what), {}, std::move(remedy));
}

std::string spelling_of(const toml::node& node, const std::filesystem::path& file, std::string_view key) {
  if (const auto text = node.as_string()) return text->get();
  if (const auto number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto flag = node.as_boolean()) return flag->get() ? "true" : "false";
  refuse(file, fmt::format("the value of '{}' is neither text, number nor boolean", key));
}

void read_table(const toml::table& table, const std::filesystem::path& file, Command command, Values& values) {
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (node.is_table() && find_command(name)) continue;
    const Option* option = find_option(name);
    if (!option || option->refused) {
      std::vector<std::string> known;
      for (const Option& each : options())
        if (!each.refused) known.emplace_back(each.name);
      refuse(file, fmt::format("unknown key '{}'", name), did_you_mean(name, known));
    }
    if (option->same_as) option = find_option(option->same_as);
    if (!(option->commands & command)) continue;
    std::vector<std::string> spelled;
    if (const auto array = node.as_array())
      for (const toml::node& item : *array) spelled.push_back(spelling_of(item, file, name));
    else
      spelled.push_back(spelling_of(node, file, name));
    if (!option->repeatable) spelled = {fmt::format("{}", fmt::join(spelled, ","))};
    values[option->name] = std::move(spelled);
  }
}

}  // namespace

Values read_config_file(const std::string& path, Command command) {
  const std::filesystem::path file = path.empty() ? user_file() : std::filesystem::path(path);
  std::error_code error;
  const auto size = file.empty() ? 0 : std::filesystem::file_size(file, error);
  if (path.empty() && (error || file.empty())) return {};
  if (error) refuse(file, error.message());
  if (size > (1u << 20)) refuse(file, "larger than 1 MiB");
  try {
    const toml::table table = toml::parse_file(file.string());
    Values values;
    read_table(table, file, command, values);
    if (const auto own = table[info_of(command).name].as_table()) read_table(*own, file, command, values);
    return values;
  } catch (const toml::parse_error& parse_error) {
    refuse(file, fmt::format("line {}: {}", parse_error.source().begin.line, parse_error.description()));
  }
}

}  // namespace lmkit::cli
