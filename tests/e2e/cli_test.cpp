// SPDX-License-Identifier: Apache-2.0
//
// The lmkit program as its users meet it: exit codes, messages, what goes where, JSON.
#include "cli.hpp"

#include <boost/json.hpp>
#include <catch.hpp>

#include <algorithm>
#include <string>
#include <vector>

using namespace lmkit::test;

namespace {

namespace json = boost::json;

// Refused with this exit code, a message that names what was found, and nothing on stdout.
void check_refused(const Outcome& outcome, int code, const std::vector<std::string>& said) {
  INFO("stdout: " << outcome.out << "\nstderr: " << outcome.err);
  CHECK(outcome.code == code);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.find("error: ") != std::string::npos);
  for (const std::string& text : said) CHECK_THAT(outcome.err, Catch::Contains(text));
}

}  // namespace

TEST_CASE("no command is a usage error that shows the overview", "[cli]") {
  const Outcome outcome = cli({});
  CHECK(outcome.code == 2);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Catch::Contains("Commands:"));
}

TEST_CASE("help and version go to stdout", "[cli]") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--help"}, {"help"}, {"help", "run"}, {"run", "--help"}, {"--version"},
                                                {"help", "--markdown"}, {"help", "--completion", "bash"}, {"help", "--completion", "zsh"},
                                                {"help", "--completion", "fish"}}) {
    const Outcome outcome = cli(words);
    INFO(words.front());
    CHECK(outcome.code == 0);
    CHECK(outcome.err.empty());
    CHECK_FALSE(outcome.out.empty());
  }
  CHECK_THAT(cli({"help", "run"}).out, Catch::Contains("--max-tokens") && Catch::Contains("--plugin"));
}

TEST_CASE("the bash completion is a script that bash accepts", "[cli]") {
  const TemporaryDirectory folder;
  const std::string script = folder.write("completion.bash", cli({"help", "--completion", "bash"}).out);
  const Outcome outcome = run_program("/bin/bash", {"-c", "source " + script + "; COMP_WORDS=(lmkit run --max-t); COMP_CWORD=2; _lmkit; echo \"$COMPREPLY\""});
  CHECK(outcome.code == 0);
  CHECK(outcome.out == "--max-tokens\n");
}

TEST_CASE("mistyped commands, options and values are met with the nearest name", "[cli]") {
  check_refused(cli({"rnu", "hi"}), 2, {"unknown command 'rnu'", "lmkit run"});
  check_refused(cli({"run", "--max-tokns", "3", "hi"}), 2, {"--max-tokns", "--max-tokens"});
  check_refused(cli({"run", "--kv", "int5", "hi"}), 2, {"int5", "f16, int8, int4"});
  check_refused(cli({"plan", "--max-tokens", "3"}), 2, {"lmkit plan has no option --max-tokens", "run, chat"});
  check_refused(cli({"--seed", "1", "run"}), 2, {"before the command"});
}

TEST_CASE("values out of range are usage errors", "[cli]") {
  check_refused(cli({"run", "--max-tokens", "many", "hi"}), 2, {"--max-tokens is 'many'", "a whole number"});
  check_refused(cli({"run", "--temperature", "-1", "hi"}), 2, {"--temperature is '-1'"});
  check_refused(cli({"run", "--temperature", "nan", "hi"}), 2, {"nan"});
  check_refused(cli({"run", "--top-p", "0", "hi"}), 2, {"above 0"});
  check_refused(cli({"run", "--top-p", "1.5", "hi"}), 2, {"1.5"});
  check_refused(cli({"run", "--session-len", "0", "hi"}), 2, {"--session-len"});
  check_refused(cli({"run", "--device-memory-limit", "lots", "hi"}), 2, {"24GiB"});
  check_refused(cli({"run", "--cache-max-entry-count", "0", "hi"}), 2, {"above 0 to 1"});
  check_refused(cli({"run", "--cache-max-entry-count", "1.01", "hi"}), 2, {"1.01"});
  check_refused(cli({"run", "--quant-policy", "3", "hi"}), 2, {"0, 4, 8"});
  check_refused(cli({"run", "--seed", "1", "--seed", "2", "hi"}), 2, {"--seed is given twice"});
  check_refused(cli({"run", "--max-tokens"}), 2, {"max-tokens"});
  check_refused(cli({"run", "--min-p", "1", "hi"}), 2, {"from 0 and below 1"});
  check_refused(cli({"run", "--json", "--logprobs", "101", "hi"}), 2, {"from 0 to 100"});
  check_refused(cli({"plan", "--load-format", "dummy"}), 2, {"--model-path"});
  check_refused(cli({"plugin", "list", "extra"}), 2, {"lmkit plugin list extra"});
}

TEST_CASE("names from other programs mean the same or are refused with a hint", "[cli]") {
  check_refused(cli({"run", "-ngl", "99", "hi"}), 2, {"leave it out"});
  check_refused(cli({"run", "--gpu-memory-utilization", "0.9", "hi"}), 2, {"--cache-max-entry-count"});
  check_refused(cli({"run", "-ctk", "q8_0", "hi"}), 2, {"-ctk q8_0 -ctv q8_0"});
  check_refused(cli({"run", "-ctk", "q8_0", "-ctv", "q4_0", "hi"}), 2, {"-ctk q8_0 with -ctv q4_0"});
  check_refused(cli({"run", "--kv", "int8", "--quant-policy", "4", "hi"}), 2, {"--kv and --quant-policy"});
}

TEST_CASE("a prompt must be one text in UTF-8", "[cli]") {
  check_refused(cli({"run", "two", "prompts"}), 2, {"2 prompts", "quotes"});
  check_refused(cli({"run", "caf\xe9"}), 2, {"not UTF-8", "byte 3 is 0xe9"});
  check_refused(cli({"run"}, {.input = "\xff\xfe"}), 2, {"not UTF-8"});
  check_refused(cli({"run"}, {.input = ""}), 2, {"empty"});
}

TEST_CASE("a setting comes from the flag, then LMKIT_*, then lmkit.toml", "[cli]") {
  const TemporaryDirectory folder;
  std::filesystem::create_directories(folder.path() / "lmkit");
  folder.write("lmkit/lmkit.toml", "temperature = -3\n");
  const std::string home = "XDG_CONFIG_HOME=" + folder.path().string();
  check_refused(cli({"run", "hi"}, {.environment = {home}}), 2, {"temperature in lmkit.toml is '-3'"});
  check_refused(cli({"run", "hi"}, {.environment = {home, "LMKIT_TEMPERATURE=-2"}}), 2, {"LMKIT_TEMPERATURE is '-2'"});
  check_refused(cli({"run", "--temperature", "-1", "hi"}, {.environment = {home, "LMKIT_TEMPERATURE=1"}}), 2, {"--temperature is '-1'"});

  folder.write("lmkit/lmkit.toml", "temprature = 1\n");
  check_refused(cli({"run", "hi"}, {.environment = {home}}), 2, {"unknown key 'temprature'", "temperature"});
  folder.write("lmkit/lmkit.toml", "temperature = \n");
  check_refused(cli({"run", "hi"}, {.environment = {home}}), 2, {"line 1"});
  folder.write("lmkit/lmkit.toml", "[chat]\ntemperature = -4\n");
  check_refused(cli({"chat"}, {.environment = {home}}), 2, {"-4"});
}

TEST_CASE("of spellings of one choice, those of the strongest place count", "[cli]") {
  if (!have_model()) return;
  const TemporaryDirectory folder;
  const std::string home = "XDG_CONFIG_HOME=" + folder.path().string();
  const auto pipeline_of = [&](std::vector<std::string> words, std::vector<std::string> environment) {
    words.insert(words.begin(), {"plan", "--device", "cpu", "--json"});
    environment.push_back(home);
    const Outcome outcome = cli(words, {.environment = environment});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return outcome.out;
  };
  folder.write("lmkit/lmkit.toml", "kv = \"int8\"\n");
  CHECK_THAT(pipeline_of({}, {}), Catch::Contains("kv-int8"));
  CHECK_THAT(pipeline_of({"--quant-policy", "4"}, {}), Catch::Contains("kv-int4"));
  CHECK_THAT(pipeline_of({"-ctk", "q4_0", "-ctv", "q4_0"}, {}), Catch::Contains("kv-int4"));
  CHECK_THAT(pipeline_of({}, {"LMKIT_QUANT_POLICY=4"}), Catch::Contains("kv-int4"));
  CHECK_THAT(pipeline_of({"--kv", "f16"}, {"LMKIT_QUANT_POLICY=4"}), Catch::Contains("kv-f16"));
  check_refused(cli({"plan", "--device", "cpu", "--tp", "1", "--plugin", "tp-threads:size=2"}), 2, {"--tp 1 with 2 ranks"});
}

TEST_CASE("a named plugin and an option about the same concept: the stronger place counts", "[cli]") {
  if (!have_model()) return;
  const TemporaryDirectory folder;
  const auto pipeline_of = [&](std::vector<std::string> words, std::vector<std::string> environment, const std::string& file) {
    folder.write("lmkit.toml", file);
    words.insert(words.begin(), {"plan", "--device", "cpu", "--json", "--config", (folder.path() / "lmkit.toml").string()});
    return cli(words, {.environment = environment});
  };
  const auto check_pipeline = [&](const char* expected, std::vector<std::string> words, std::vector<std::string> environment, const std::string& file) {
    const Outcome outcome = pipeline_of(words, environment, file);
    INFO(expected << "\n" << outcome.err);
    CHECK(outcome.code == 0);
    CHECK_THAT(outcome.out, Catch::Contains(expected));
  };
  const std::string int4 = "plugin = [\"kv-int4:centre=none\"]\n";
  check_pipeline("kv-int4", {}, {}, int4);
  check_pipeline("kv-int8", {"--kv", "int8"}, {}, int4);
  check_pipeline("kv-f16", {"--kv", "f16"}, {}, int4);
  check_pipeline("kv-f16", {"-ctk", "f16", "-ctv", "f16"}, {"LMKIT_PLUGIN=kv-int8"}, int4);
  check_pipeline("kv-int8", {}, {"LMKIT_QUANT_POLICY=8"}, int4);
  check_pipeline("kv-int4", {"--plugin", "kv-int4"}, {}, "kv = \"int8\"\n");
  check_pipeline("kv-int4", {"--plugin", "kv-int4"}, {"LMKIT_KV=f16"}, "");
  check_pipeline("one-device", {"--tp", "1"}, {}, "plugin = [\"tp-threads:size=2\"]\n");
  check_pipeline("tp-threads(2)", {"--plugin", "tp-threads:size=2"}, {}, "tp = 1\n");
  check_pipeline("kv-int4", {"--tp", "2"}, {}, int4);  // about something else
  check_pipeline("mem-ratio(0.5)", {"--cache-max-entry-count", "0.5"}, {}, "plugin = [\"mem-ratio:ratio=0.25\"]\n");
  check_refused(pipeline_of({"--kv", "f16", "--plugin", "kv-int4"}, {}, ""), 5, {"--kv f16", "kv-int4"});
  check_refused(pipeline_of({"--kv", "int8", "--plugin", "kv-int4"}, {}, ""), 5, {"kv-int4", "kv-int8"});
  check_refused(pipeline_of({}, {}, "kv = \"int8\"\n" + int4), 5, {"kv-int4", "kv-int8"});
}

TEST_CASE("a model that cannot be read is exit code 3", "[cli]") {
  const TemporaryDirectory folder;
  check_refused(cli({"run", "-m", "/no/such/file.gguf", "hi"}), 3, {"/no/such/file.gguf"});
  check_refused(cli({"run", "-m", "no-such-model", "hi"}), 3, {"no-such-model"});
  check_refused(cli({"run", "-m", folder.write("empty.gguf", ""), "hi"}), 3, {"empty.gguf"});
  check_refused(cli({"run", "-m", folder.write("text.gguf", "this is no model, only text that goes on for a while"), "hi"}), 3, {"text.gguf"});
  check_refused(cli({"run", "-m", folder.write("mamba.gguf", tiny_gguf("mamba")), "hi"}), 3, {"mamba"});
  const std::string none = "XDG_CACHE_HOME=" + folder.path().string();
  check_refused(cli({"run", "hi"}, {.environment = {none}}), 3, {"tools/quickstart"});
}

TEST_CASE("a model file cut short anywhere in its header is exit code 3", "[cli]") {
  const TemporaryDirectory folder;
  const std::string whole = tiny_gguf("llama");
  for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 40) {
    INFO("length " << length);
    check_refused(cli({"plan", "-m", folder.write("cut.gguf", whole.substr(0, length))}), 3, {"cut.gguf"});
  }
}

TEST_CASE("a plugin that cannot be loaded is exit code 5", "[cli]") {
  const TemporaryDirectory folder;
  check_refused(cli({"run", "--plugin", "kv-itn4", "hi"}), 5, {"kv-itn4", "kv-int4"});
  check_refused(cli({"run", "--plugin", "./nothing.so", "hi"}), 5, {"nothing.so"});
  folder.write("mine.so", "not ELF");
  check_refused(cli({"run", "--plugin", "./mine.so", "hi"}, {.folder = folder.path().string()}), 5, {"mine.so"});
  check_refused(cli({"run", "--plugin", "mine", "hi"}, {.folder = folder.path().string()}), 5, {"mine"});
  check_refused(cli({"run", "--plugin", "mine.so", "hi"}, {.folder = folder.path().string()}), 5, {"mine.so"});
  check_refused(cli({"run", "--plugin", "kv-int4", "--plugin", "kv-int8", "hi"}), 5, {"kv-int4", "kv-int8"});
  check_refused(cli({"run", "--plugin", "kv-int4", "--kv", "int8", "hi"}), 5, {"kv-int4", "kv-int8"});
  check_refused(cli({"run", "--plugin", "kv-int4", "--kv", "f16", "hi"}), 5, {"kv-int4"});
  check_refused(cli({"run", "--plugin", "mem-ratio:ratoi=0.5", "hi"}), 5, {"ratoi", "ratio"});
  check_refused(cli({"run", "--plugin", "mem-ratio:ratio=0", "hi"}), 5, {"ratio"});
  check_refused(cli({"run", "--plugin", "mem-ratio:ratio=2", "hi"}), 5, {"ratio"});
  check_refused(cli({"run", "--plugin", "mem-ratio:ratio=much", "hi"}), 5, {"much"});
}

TEST_CASE("plugin list names every plugin of the build, and inspect its options", "[cli]") {
  const Outcome listed = cli({"plugin", "list", "--json"});
  CHECK(listed.code == 0);
  CHECK(listed.err.empty());
  const json::value report = json::parse(listed.out);
  CHECK(report.at("schema") == "lmkit.plugin_list/1");
  std::vector<std::string> names;
  for (const json::value& plugin : report.at("plugins").as_array()) names.emplace_back(plugin.at("name").as_string());
  for (const char* name : {"kv-int4", "kv-int8", "mem-ratio", "tp-threads"}) CHECK(std::count(names.begin(), names.end(), name) == 1);

  const json::value ratio = json::parse(cli({"plugin", "inspect", "mem-ratio", "--json"}).out);
  CHECK(ratio.at("schema") == "lmkit.plugin/1");
  CHECK(ratio.at("options").as_array().size() >= 4);
  CHECK_THAT(cli({"plugin", "inspect", "kv-int4"}).out, Catch::Contains("lmkit.kv/1"));
  check_refused(cli({"plugin", "inspect", "kv-int5"}), 5, {"kv-int"});
  check_refused(cli({"plugin", "remove"}), 2, {"lmkit plugin remove"});
}

TEST_CASE("doctor finds the CPU, memory and plugins of this machine", "[cli]") {
  const Outcome outcome = cli({"doctor", "--json"});
  CHECK(outcome.code == 0);
  const json::value report = json::parse(outcome.out);
  CHECK(report.at("schema") == "lmkit.doctor/1");
  std::vector<std::string> subjects;
  for (const json::value& finding : report.at("findings").as_array()) subjects.emplace_back(finding.at("subject").as_string());
  for (const char* subject : {"CPU", "caches", "memory", "plugins", "default model"})
    CHECK(std::count(subjects.begin(), subjects.end(), subject) >= 1);
}
