// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>

#include <boost/program_options.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <set>

namespace lmkit::cli {
namespace {

namespace po = boost::program_options;

[[noreturn]] void refuse(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::usage, std::move(found), std::move(expected), std::move(remedy));
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string range_of(const Option& option, const char* what) {
  if (option.maximum >= 1e15) return fmt::format("{} {} {:.0f}", what, option.above_minimum ? "above" : "of at least", option.minimum);
  return fmt::format("{} {} {} {} {:.10g}", what, option.above_minimum ? "above" : "from", option.minimum, option.below_maximum ? "and below" : "to", option.maximum);
}

bool within(const Option& option, double value) {
  return std::isfinite(value) && (option.below_maximum ? value < option.maximum : value <= option.maximum) && (option.above_minimum ? value > option.minimum : value >= option.minimum);
}

std::string spelled_choices(const Option& option) { return fmt::format("one of {}", fmt::join(split(option.choices, '|'), ", ")); }

// `place` is what the value stands behind: "--seed", "LMKIT_SEED", "seed in lmkit.toml"
void check(const Option& option, const std::string& value, const std::string& place) {
  const auto bad = [&](const std::string& expected) { refuse(fmt::format("{} is '{}'", place, value), expected); };
  const auto check_choice = [&](const std::string& word) {
    const auto names = split(option.choices, '|');
    if (std::find(names.begin(), names.end(), word) != names.end()) return;
    const std::string hint = did_you_mean_hint(word, names);
    bad(spelled_choices(option) + (hint.empty() ? "" : " (" + hint + ")"));
  };
  const auto check_whole = [&](const std::string& word) {
    const auto number = parse_number<std::int64_t>(word);
    if (!number || !within(option, static_cast<double>(*number))) bad(range_of(option, "a whole number"));
  };
  switch (option.kind) {
    case Kind::text: break;
    case Kind::flag:
      if (value != "true" && value != "false") bad("true or false");
      break;
    case Kind::whole: check_whole(value); break;
    case Kind::wholes:
      for (const std::string& word : split(value, ',')) check_whole(word);
      break;
    case Kind::number:
      if (const auto number = parse_number<double>(value); !number || !within(option, *number)) bad(range_of(option, "a number"));
      break;
    case Kind::size:
      if (const auto bytes = parse_bytes(value); !bytes || *bytes < 1) bad("a size such as 24GiB or 500MB");
      break;
    case Kind::choice: check_choice(value); break;
    case Kind::list:
      for (const std::string& word : split(value, ',')) check_choice(word);
      break;
  }
}

const Option& resolved(const Option& option) { return option.same_as ? *find_option(option.same_as) : option; }

po::options_description description_of(Command command) {
  po::options_description description;
  for (const Option& option : options()) {
    if (!(option.commands & command)) continue;
    const std::string names = option.letter ? fmt::format("{},{}", option.name, option.letter) : option.name;
    if (option.kind == Kind::flag)
      description.add_options()(names.c_str(), option.help);
    else
      description.add_options()(names.c_str(), po::value<std::vector<std::string>>(), option.help);
  }
  return description;
}

[[noreturn]] void refuse_unknown(std::string word, Command command) {
  const std::string bare = word.substr(std::min(word.find_first_not_of('-'), word.size()));
  const std::string name = bare.substr(0, bare.find('='));
  if (const Option* elsewhere = find_option(name)) {
    std::vector<std::string> takers;
    for (const CommandInfo& info : commands())
      if (elsewhere->commands & info.id) takers.emplace_back(info.name);
    refuse(fmt::format("lmkit {} has no option --{}", info_of(command).name, name), {},
           fmt::format("it with {}", fmt::join(takers, ", ")));
  }
  std::vector<std::string> known;
  for (const Option& option : options())
    if ((option.commands & command) && !option.refused) known.emplace_back(option.name);
  const std::string near = did_you_mean(name, known);
  refuse(fmt::format("unknown option '{}'", word), {},
         near.empty() ? fmt::format("lmkit help {}", info_of(command).name) : fmt::format("--{}", near));
}

// Long options of one dash, as llama.cpp has them: -ctk q8_0
std::vector<std::string> with_two_dashes(std::vector<std::string> words) {
  for (std::string& word : words) {
    if (word == "--") break;
    if (word.size() < 3 || word[0] != '-' || word[1] == '-') continue;
    const Option* option = find_option(std::string_view(word).substr(1));
    if (option && option->one_dash) word = fmt::format("-{}", word);
  }
  return words;
}

po::parsed_options parse_words(Command command, const std::vector<std::string>& words, const po::options_description& description) {
  namespace style = po::command_line_style;
  po::positional_options_description operands;
  operands.add("operand", -1);
  po::options_description all;
  all.add(description).add_options()("operand", po::value<std::vector<std::string>>());
  try {
    return po::command_line_parser(with_two_dashes(words))
        .options(all).positional(operands).style(style::unix_style & ~style::allow_guessing).run();
  } catch (const po::unknown_option& error) {
    refuse_unknown(error.get_option_name(), command);
  } catch (const po::invalid_command_line_syntax& error) {
    refuse(fmt::format("{}", error.what()), {}, fmt::format("lmkit help {}", info_of(command).name));
  }
}

std::string variable_of(const Option& option) {
  std::string name = fmt::format("LMKIT_{}", option.name);
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

Arguments Arguments::parse(Command command, const std::vector<std::string>& words) {
  Arguments arguments;
  arguments.command_ = command;
  for (po::option& entry : parse_words(command, words, description_of(command)).options) {
    if (entry.position_key >= 0) {
      arguments.operands_.push_back(entry.value.at(0));
      continue;
    }
    const Option* option = find_option(entry.string_key);
    if (!option) refuse_unknown(entry.original_tokens.empty() ? entry.string_key : entry.original_tokens[0], command);
    if (option->refused) refuse(fmt::format("--{} is not an option of lmkit: {}", option->name, option->refused));
    const Option& meant = resolved(*option);
    const std::string value = meant.kind == Kind::flag ? "true" : entry.value.at(0);
    check(meant, value, fmt::format("--{}", option->name));
    auto& values = arguments.given_[meant.name];
    if (!values.empty() && !meant.repeatable && meant.kind != Kind::flag)
      refuse(fmt::format("--{} is given twice", meant.name), "one value");
    values.push_back(value);
  }

  Values environment;
  for (const Option& option : options()) {
    if (!(option.commands & command) || option.same_as || option.refused) continue;
    const char* value = std::getenv(variable_of(option).c_str());
    if (!value || !*value || std::string_view(option.name) == "plugin-path") continue;  // the registry reads that one
    environment[option.name] = option.repeatable ? split(value, ';') : std::vector<std::string>{value};
  }
  arguments.add_defaults_from(environment, Place::environment);
  if (command != help) arguments.add_defaults_from(read_config_file(arguments.text("config"), command), Place::file);
  return arguments;
}

void Arguments::add_defaults_from(const Values& source, Place place) {
  std::set<std::string_view> decided;
  for (const auto& [name, values] : given_)
    if (const char* what = find_option(name)->decides) decided.insert(what);
  for (const auto& [name, values] : source) {
    const Option& option = *find_option(name);
    for (const std::string& value : values) check(option, value, place == Place::file ? fmt::format("{} in lmkit.toml", name) : variable_of(option));
    if (option.decides && decided.contains(option.decides)) continue;
    if (given_.try_emplace(name, values).second) weaker_.emplace(name, place);
  }
}

Place Arguments::place(std::string_view name) const {
  if (!given(name)) return Place::fallback;
  const auto found = weaker_.find(name);
  return found == weaker_.end() ? Place::command_line : found->second;
}

std::string Arguments::text(std::string_view name) const {
  if (const auto found = given_.find(name); found != given_.end() && !found->second.empty()) return found->second.front();
  const Option* option = find_option(name);
  return option && option->fallback ? option->fallback : "";
}

std::vector<std::string> Arguments::texts(std::string_view name) const {
  const Option* option = find_option(name);
  const auto found = given_.find(name);
  if (option && option->repeatable) return found == given_.end() ? std::vector<std::string>{} : found->second;
  const std::string value = text(name);
  return value.empty() ? std::vector<std::string>{} : split(value, ',');
}

std::optional<std::int64_t> Arguments::whole(std::string_view name) const { return parse_number<std::int64_t>(text(name)); }

std::vector<std::int64_t> Arguments::wholes(std::string_view name) const {
  std::vector<std::int64_t> numbers;
  for (const std::string& word : texts(name)) numbers.push_back(*parse_number<std::int64_t>(word));
  return numbers;
}

double Arguments::number(std::string_view name) const { return parse_number<double>(text(name)).value_or(0); }

std::optional<std::int64_t> Arguments::bytes(std::string_view name) const {
  return given(name) ? parse_bytes(text(name)) : std::nullopt;
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  constexpr std::string_view prefixes = "KMGT";
  double scale = 1;
  if (!unit.empty() && unit != "B") {
    const auto power = prefixes.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
    const std::string_view rest = unit.substr(1);
    if (power == prefixes.npos || !(rest.empty() || rest == "iB" || rest == "B")) return std::nullopt;
    scale = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power) + 1);
  }
  const double bytes = value * scale;
  if (!(bytes >= 0) || bytes > 9e18) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace lmkit::cli
