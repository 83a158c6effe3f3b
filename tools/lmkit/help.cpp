// SPDX-License-Identifier: Apache-2.0
#include "help.hpp"

#include "arguments.hpp"

#include <fmt/format.h>

#include <iterator>
#include <utility>
#include <vector>

namespace lmkit::cli {
namespace {

constexpr int help_column = 34;
constexpr std::size_t width = 110;

const char* title_of(Section section) {
  switch (section) {
    case Section::model: return "Model and limits";
    case Section::pipeline: return "Pipeline";
    case Section::sampling: return "Answer";
    case Section::output: return "Output";
    case Section::measuring: return "Measuring";
    case Section::other: return "Other";
  }
  return "";
}

std::string dashes(const Option& option) { return std::string(option.one_dash ? 1 : 2, '-'); }

// "-m, --model-path MODEL"
std::string spelling_of(const Option& option) {
  const std::string letter = option.letter ? fmt::format("-{}, ", option.letter) : "    ";
  return fmt::format("{}{}{}{}{}", letter, dashes(option), option.name, option.value ? " " : "", option.value ? option.value : "");
}

// The same option's other names.
std::string also(const Option& option) {
  std::string names;
  for (const Option& other : options())
    if (other.same_as && std::string_view(other.same_as) == option.name)
      names += fmt::format("{}--{}", names.empty() ? " (also " : ", ", other.name);
  return names.empty() ? names : names + ")";
}

std::string meaning_of(const Option& option) {
  return fmt::format("{}{}{}", option.help, option.fallback ? fmt::format(" (default: {})", option.fallback) : "", also(option));
}

std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  std::size_t used = indent;
  for (const std::string& word : split(text, ' ')) {
    if (used > indent && used + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      used = indent;
    }
    if (used > indent) out += ' ', ++used;
    out += word;
    used += word.size();
  }
  return out;
}

template <class Use>
void for_each_option(const CommandInfo& command, Section section, Use use) {
  for (const Option& option : options())
    if (option.section == section && (option.commands & command.id) && !option.same_as && !option.refused) use(option);
}

constexpr Section sections[] = {Section::model, Section::pipeline, Section::sampling, Section::output, Section::measuring, Section::other};

std::vector<std::string> spellings(const CommandInfo& command) {
  std::vector<std::string> names;
  for (const Option& option : options())
    if ((option.commands & command.id) && !option.refused && !option.same_as) {
      names.push_back(dashes(option) + option.name);
      if (option.letter) names.push_back(fmt::format("-{}", option.letter));
    }
  return names;
}

bool names_a_file(const Option& option) {
  const std::string_view name = option.name;
  return name == "model-path" || name == "data" || name == "config" || name == "plugin-path";
}

std::string single_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += "'\\'";  // ends the quotes, a quoted quote, begins them again
    out += c;
  }
  out += '\'';
  return out;
}

std::string bash_completion() {
  std::string names;
  for (const CommandInfo& command : commands()) names += fmt::format("{}{}", names.empty() ? "" : " ", command.name);
  std::string cases, values;
  for (const CommandInfo& command : commands()) {
    const std::string words = command.words ? fmt::format("{} ", fmt::join(split(command.words, '|'), " ")) : "";
    cases += fmt::format("    {}) words=\"{}{}\" ;;\n", command.name, words, fmt::join(spellings(command), " "));
  }
  for (const Option& option : options()) {
    if (option.same_as || option.refused) continue;
    const std::string names_of = dashes(option) + option.name + (option.letter ? fmt::format("|-{}", option.letter) : "");
    if (option.choices)
      values += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); return ;;\n", names_of,
                            fmt::join(split(option.choices, '|'), " "));
    else if (names_a_file(option))
      values += fmt::format("    {}) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n", names_of);
  }
  return fmt::format(
      "# bash completion for lmkit: lmkit help --completion bash > ~/.local/share/bash-completion/completions/lmkit\n"
      "_lmkit() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} words=''\n"
      "  case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{}  esac\n"
      "  if [ \"$COMP_CWORD\" = 1 ]; then words=\"{} --version --help\"\n"
      "  else case ${{COMP_WORDS[1]}} in\n{}  esac; fi\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "}}\n"
      "complete -o default -F _lmkit lmkit\n",
      values, names, cases);
}

std::string zsh_completion() {
  std::string out = "#compdef lmkit\n# zsh completion for lmkit: lmkit help --completion zsh > ~/.zfunc/_lmkit\n_lmkit() {\n  local -a commands\n  commands=(\n";
  for (const CommandInfo& command : commands()) out += fmt::format("    {}\n", single_quoted(fmt::format("{}:{}", command.name, command.summary)));
  out += "  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n  case ${words[2]} in\n";
  const auto escaped = [](std::string_view text) {
    std::string safe;
    for (char c : text) {
      if (c == '[' || c == ']' || c == ':' || c == '\\') safe += '\\';
      safe += c;
    }
    return safe;
  };
  for (const CommandInfo& command : commands()) {
    out += fmt::format("    {}) _arguments", command.name);
    for (const Option& option : options()) {
      if (!(option.commands & command.id) || option.same_as || option.refused) continue;
      std::string value;
      if (option.choices)
        value = fmt::format(":{}:({})", escaped(option.value), fmt::join(split(option.choices, '|'), " "));
      else if (option.kind != Kind::flag)
        value = fmt::format(":{}:{}", escaped(option.value), names_a_file(option) ? "_files" : "");
      const std::string name = dashes(option) + option.name;
      out += fmt::format(" \\\n      {}", single_quoted(fmt::format("{}{}[{}]{}", option.repeatable ? "*" : "", name, escaped(option.help), value)));
    }
    out += command.words ? fmt::format(" \\\n      '2:word:({})' ;;\n", fmt::join(split(command.words, '|'), " ")) : " ;;\n";
  }
  return out + "  esac\n}\n_lmkit \"$@\"\n";
}

std::string fish_completion() {
  std::string out = "# fish completion for lmkit: lmkit help --completion fish > ~/.config/fish/completions/lmkit.fish\n";
  for (const CommandInfo& command : commands()) {
    out += fmt::format("complete -c lmkit -f -n __fish_use_subcommand -a {} -d {}\n", command.name, single_quoted(command.summary));
    const std::string here = fmt::format("complete -c lmkit -n '__fish_seen_subcommand_from {}'", command.name);
    if (command.words) out += fmt::format("{} -f -a '{}'\n", here, fmt::join(split(command.words, '|'), " "));
    for (const Option& option : options()) {
      if (!(option.commands & command.id) || option.same_as || option.refused) continue;
      out += fmt::format("{} {} {}", here, option.one_dash ? "-o" : "-l", option.name);
      if (option.letter) out += fmt::format(" -s {}", option.letter);
      if (option.choices) out += fmt::format(" -x -a '{}'", fmt::join(split(option.choices, '|'), " "));
      else if (option.kind != Kind::flag) out += names_a_file(option) ? " -r -F" : " -x";
      out += fmt::format(" -d {}\n", single_quoted(option.help));
    }
  }
  return out;
}

}  // namespace

std::string overview() {
  std::string out =
      "lmkit runs large language models where memory is short.\n\n"
      "  lmkit run \"Why is the sky blue?\"\n"
      "  lmkit run --plugin kv-int4 --model-path MODEL \"…\"\n\nCommands:\n";
  for (const CommandInfo& command : commands())
    out += fmt::format("  {:<28}{}\n", fmt::format("{} {}", command.name, command.operands), command.summary);
  return out + "\n'lmkit help COMMAND' lists a command's options, 'lmkit --version' names the version.\n";
}

std::string help_of(const CommandInfo& command) {
  std::string out = fmt::format("lmkit {}{}{} [OPTIONS]: {}\n{}\n", command.name, *command.operands ? " " : "", command.operands,
                                command.summary, command.details);
  for (const Section section : sections) {
    std::string body;
    for_each_option(command, section, [&](const Option& option) {
      std::string left = "  " + spelling_of(option);
      if (left.size() + 2 > help_column) left += "\n" + std::string(help_column, ' ');
      else left.resize(help_column, ' ');
      body += left + wrapped(meaning_of(option), help_column) + "\n";
    });
    if (!body.empty()) out += fmt::format("\n{}:\n{}", title_of(section), body);
  }
  return out;
}

std::string manual_in_markdown() {
  std::string out =
      "# lmkit: commands and options\n\n"
      "Written by `lmkit help --markdown`. An option's value comes from the first place that has it: the command line,\n"
      "`LMKIT_<NAME>` (`--model-path` is `LMKIT_MODEL_PATH`), `lmkit.toml` in `$XDG_CONFIG_HOME/lmkit`, its default.\n"
      "A plugin that is named (`--plugin kv-int4`) and an option about the same concept (`--kv`, `--tp`, `--cache-max-entry-count`) count likewise.\n\n"
      "Exit codes: 0 ok, 1 run time, 2 usage, 3 model unreadable or unsupported, 4 does not fit in memory, 5 plugin refused,\n"
      "6 device or driver, 7 a gate failed, 130 interrupted.\n";
  for (const CommandInfo& command : commands()) {
    out += fmt::format("\n## lmkit {}{}{}\n\n{}. {}\n", command.name, *command.operands ? " " : "", command.operands,
                       std::string(1, static_cast<char>(std::toupper(static_cast<unsigned char>(command.summary[0])))) + (command.summary + 1), command.details);
    for (const Section section : sections) {
      std::string body;
      for_each_option(command, section, [&](const Option& option) {
        std::string spelling = spelling_of(option);
        spelling.erase(0, spelling.find('-'));
        const std::string meaning = meaning_of(option);
        body += fmt::format("| `{}` | {} |\n", spelling, fmt::join(split(meaning, '|'), "\\|"));
      });
      if (!body.empty()) out += fmt::format("\n| {} | |\n|---|---|\n{}", title_of(section), body);
    }
  }
  return out;
}

std::string completion_for(std::string_view shell) {
  if (shell == "bash") return bash_completion();
  if (shell == "zsh") return zsh_completion();
  return fish_completion();
}

}  // namespace lmkit::cli
