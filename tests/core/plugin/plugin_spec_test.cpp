// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/plugin_spec.hpp>

#include <catch.hpp>
#include <error_of.hpp>

#include <string>
#include <vector>

using namespace lmkit;

namespace {

std::string written(const PluginSpec& spec) {
  std::string text = spec.name;
  for (const PluginSetting& setting : spec.settings) text += " [" + setting.name + "=" + setting.value + "]";
  return text;
}

std::string usage_error(const std::string& text) {
  return error_of(ErrorKind::usage, [&] { parse_plugin_spec(text); });
}

PluginFacts facts() {
  PluginFacts facts;
  facts.id = "demo";
  facts.options = {
      {.name = "size", .help = "", .type = OptionType::integer, .default_value = "2", .minimum = 1, .maximum = 64, .choices = {}},
      {.name = "ratio", .help = "", .type = OptionType::number, .default_value = {}, .minimum = 0.001, .maximum = 1, .choices = {}},
      {.name = "rotate", .help = "", .type = OptionType::boolean, .default_value = "true", .choices = {}},
      {.name = "mode", .help = "", .type = OptionType::text, .default_value = {}, .choices = {"hadamard", "none"}},
      {.name = "file", .help = "", .type = OptionType::text, .default_value = {}, .choices = {}},
  };
  return facts;
}

std::string settings_of(const std::string& spec) {
  PluginSpec checked = parse_plugin_spec(spec);
  checked.settings = checked_settings(checked, facts());
  return written(checked);
}

std::string refusal_of(const std::string& spec) {
  return error_of(ErrorKind::plugin, [&] { settings_of(spec); });
}

}  // namespace

TEST_CASE("a spec is a name and its settings") {
  CHECK(written(parse_plugin_spec("kv-int4")) == "kv-int4");
  CHECK(written(parse_plugin_spec("kv-int4:group=64")) == "kv-int4 [group=64]");
  CHECK(written(parse_plugin_spec("mem-ratio:ratio=0.8,max-share=0.5")) == "mem-ratio [ratio=0.8] [max-share=0.5]");
  CHECK(written(parse_plugin_spec("demo:file=/a/b:c=d")) == "demo [file=/a/b:c=d]");
  CHECK(written(parse_plugin_spec("demo:file=")) == "demo [file=]");
  CHECK_FALSE(parse_plugin_spec("demo:file=/a/b").is_path());
}

TEST_CASE("a path may have colons") {
  CHECK(written(parse_plugin_spec("./my-kv.so")) == "./my-kv.so");
  CHECK(parse_plugin_spec("./my-kv.so").is_path());
  CHECK(written(parse_plugin_spec("./my-kv.so:bits=3")) == "./my-kv.so [bits=3]");
  CHECK(written(parse_plugin_spec("/a:b/c.so")) == "/a:b/c.so");
  CHECK(written(parse_plugin_spec("/a:b/c.so:bits=3,rotate=false")) == "/a:b/c.so [bits=3] [rotate=false]");
  CHECK(written(parse_plugin_spec("/dir.so:x/c.so:bits=3")) == "/dir.so:x/c.so [bits=3]");
  CHECK(written(parse_plugin_spec("./c.so:file=x.so:y=z")) == "./c.so [file=x.so:y=z]");
  CHECK(written(parse_plugin_spec("./plug:bits=3")) == "./plug [bits=3]");
  CHECK(written(parse_plugin_spec("/a=b/c.so:bits=3")) == "/a=b/c.so [bits=3]");
}

TEST_CASE("a malformed spec says what is wrong with it") {
  CHECK_SAYS(usage_error(""), "names no plugin");
  CHECK_SAYS(usage_error(":size=2"), "names no plugin");
  CHECK_SAYS(usage_error("demo:"), "a setting is empty");
  CHECK_SAYS(usage_error("demo:size=2,"), "a setting is empty");
  CHECK_SAYS(usage_error("demo:size"), "'size' has no '='");
  CHECK_SAYS(usage_error("demo:=2"), "'=2' has no key");
  CHECK_SAYS(usage_error("./demo.so:size"), "'size' has no '='");
  CHECK_SAYS(usage_error("demo:\x1b[31m=2"), "not printable");
  CHECK_SAYS(usage_error("demo:size=\xff"), "not printable");
  CHECK_SAYS(usage_error(std::string(5000, 'x')), "5000 bytes long");
}

TEST_CASE("defaults are filled in behind what was given, and values are spelled in one way") {
  CHECK(settings_of("demo") == "demo [size=2] [rotate=true]");
  CHECK(settings_of("demo:rotate=off,ratio=0.50,size=064") == "demo [rotate=false] [ratio=0.5] [size=64]");
  CHECK(settings_of("demo:mode=none") == "demo [mode=none] [size=2] [rotate=true]");
}

TEST_CASE("a setting that the plugin does not take is refused with what it takes") {
  const std::string unknown = refusal_of("demo:siez=2");
  CHECK_SAYS(unknown, "demo has no option 'siez'");
  CHECK_SAYS(unknown, "did you mean 'size'?");
  CHECK_SAYS(unknown, "one of size, ratio, rotate, mode, file");
  CHECK_SAYS(refusal_of("demo:size=0"), "size=0 is out of range; expected a whole number from 1 to 64");
  CHECK_SAYS(refusal_of("demo:size=65"), "size=65 is out of range");
  CHECK_SAYS(refusal_of("demo:size=99999999999999999999"), "is not a whole number");
  CHECK_SAYS(refusal_of("demo:size=2.5"), "size=2.5 is not a whole number");
  CHECK_SAYS(refusal_of("demo:size="), "is not a whole number");
  CHECK_SAYS(refusal_of("demo:ratio=0"), "ratio=0 is out of range; expected a number from 0.001 to 1");
  CHECK_SAYS(refusal_of("demo:ratio=1.01"), "is out of range");
  CHECK_SAYS(refusal_of("demo:ratio=nan"), "ratio=nan is not a number");
  CHECK_SAYS(refusal_of("demo:ratio=0.5x"), "is not a number");
  CHECK_SAYS(refusal_of("demo:rotate=maybe"), "expected true or false");
  CHECK_SAYS(refusal_of("demo:mode=hadamrd"), "did you mean 'hadamard'?");
  CHECK_SAYS(refusal_of("demo:mode=hadamrd"), "expected one of hadamard, none");
  CHECK_SAYS(refusal_of("demo:size=2,size=3"), "size is given twice");
}
