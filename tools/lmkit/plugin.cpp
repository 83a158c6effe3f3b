// SPDX-License-Identifier: Apache-2.0
//
// lmkit plugin list | inspect NAME: what plugins say about themselves, read from their files without running them.
#include "commands.hpp"
#include "composition.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/plugin/registry.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>

namespace lmkit::cli {
namespace {

namespace json = boost::json;

json::array array_of(const std::vector<std::string>& texts) { return json::array(texts.begin(), texts.end()); }

json::value json_of(const PluginOption& option) {
  static constexpr const char* types[] = {"bool", "int", "float", "string"};
  json::object out{{"name", option.name}, {"type", types[static_cast<int>(option.type)]}, {"help", option.help},
                   {"allowed", allowed_values(option)}};
  out["default"] = option.default_value ? json::value(*option.default_value) : json::value(nullptr);
  if (option.type == OptionType::integer || option.type == OptionType::number) {
    out["minimum"] = option.minimum;
    out["maximum"] = option.maximum;
  }
  if (!option.choices.empty()) out["choices"] = array_of(option.choices);
  return out;
}

json::object json_of(const PluginFacts& facts) {
  json::array options;
  for (const PluginOption& option : facts.options) options.push_back(json_of(option));
  return {{"name", facts.id},         {"version", facts.version},       {"summary", facts.summary},
          {"licence", facts.licence}, {"file", facts.file.string()},    {"abi", fmt::format("{}.{}", facts.abi_major, facts.abi_minor)},
          {"compiler", facts.compiler}, {"cpu_isas", facts.cpu_isas},   {"cuda_archs", facts.cuda_archs},
          {"extensions", array_of(facts.extensions)}, {"options", options}};
}

int list(const Arguments& arguments, const PluginRegistry& registry) {
  const std::vector<FoundPlugin> plugins = registry.list();
  if (arguments.flag("json")) {
    json::array items;
    for (const FoundPlugin& found : plugins) {
      json::object item = found.facts ? json_of(*found.facts) : json::object{{"name", found.name}, {"file", found.file.string()}};
      if (!found.problem.empty()) item["problem"] = found.problem;
      item["shadowed"] = found.shadowed;
      items.push_back(item);
    }
    print(json::serialize(json::object{{"schema", "lmkit.plugin_list/1"}, {"plugins", items}}) + "\n");
    return 0;
  }
  std::size_t width = 4;
  for (const FoundPlugin& found : plugins) width = std::max(width, found.name.size());
  for (const FoundPlugin& found : plugins) {
    const std::string what = !found.problem.empty() ? fmt::format("refused: {}", found.problem)
                             : found.shadowed       ? fmt::format("hidden by a folder before it: {}", found.file.string())
                                                    : fmt::format("{}  {}", found.facts->version, found.facts->summary);
    print(fmt::format("{:<{}}  {}\n", found.name, width, what));
  }
  if (plugins.empty()) {
    say("no plugins found in:");
    for (const auto& folder : plugin_folders(arguments)) say("  " + folder.string());
  }
  return 0;
}

int inspect(const Arguments& arguments, const PluginRegistry& registry) {
  if (arguments.operands().size() != 2) throw Error(ErrorKind::usage, "lmkit plugin inspect needs one NAME or ./PATH.so");
  const PluginFacts facts = registry.inspect(parse_plugin_spec(arguments.operands()[1]));
  if (arguments.flag("json")) {
    json::object out = json_of(facts);
    out["schema"] = "lmkit.plugin/1";
    print(json::serialize(out) + "\n");
    return 0;
  }
  std::string out = fmt::format("{} {}  {}\n", facts.id, facts.version, facts.summary);
  const auto row = [&](const char* name, const std::string& value) { out += fmt::format("  {:<12}{}\n", name, value); };
  row("file", facts.file.string());
  row("licence", facts.licence);
  row("ABI", fmt::format("{}.{}", facts.abi_major, facts.abi_minor));
  row("serves", fmt::format("{}", fmt::join(facts.extensions, ", ")));
  row("built with", facts.compiler);
  row("CPU", facts.cpu_isas);
  row("CUDA", facts.cuda_archs.empty() ? "none" : facts.cuda_archs);
  out += facts.options.empty() ? "no options\n" : "options\n";
  for (const PluginOption& option : facts.options)
    out += fmt::format("  {:<12}{}: {}{}\n", option.name, option.help, allowed_values(option),
                       option.default_value ? fmt::format(" (default: {})", *option.default_value) : "");
  print(out);
  return 0;
}

}  // namespace

int plugin_command(const Arguments& arguments) {
  const PluginRegistry registry(plugin_folders(arguments));
  const std::string what = arguments.operands().empty() ? "" : arguments.operands()[0];
  if (what == "list" && arguments.operands().size() == 1) return list(arguments, registry);
  if (what == "inspect") return inspect(arguments, registry);
  throw Error(ErrorKind::usage, what.empty() ? "lmkit plugin needs a word" : fmt::format("lmkit plugin {} cannot be understood", fmt::join(arguments.operands(), " ")), {},
              "lmkit plugin list, or lmkit plugin inspect NAME");
}

}  // namespace lmkit::cli
