// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/registry.hpp>

#include <catch.hpp>
#include <error_of.hpp>
#include <temporary_directory.hpp>

#include <elf.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

using namespace lmkit;
namespace fs = std::filesystem;

namespace {

const fs::path fixtures = LMKIT_TEST_FIXTURES;

// Knows whether the code of a fixture has run since it was made.
class Mark {
 public:
  Mark() : file_(directory_.path() / "mark") { ::setenv("LMKIT_TEST_MARK", file_.c_str(), 1); }
  ~Mark() { ::unsetenv("LMKIT_TEST_MARK"); }
  bool made() const { return fs::exists(file_); }

 private:
  lmkit_test::TemporaryDirectory directory_;
  fs::path file_;
};

std::string refusal(const PluginSpec& spec) {
  const Mark mark;
  const std::string text = error_of(ErrorKind::plugin, [&] { PluginRegistry({fixtures}).compose(std::vector{spec}); });
  CHECK_FALSE(mark.made());
  return text;
}

std::string refusal(const std::string& spec) { return refusal(parse_plugin_spec(spec)); }

std::vector<std::byte> bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::vector<std::byte> bytes;
  for (std::istreambuf_iterator<char> c(in), end; c != end; ++c) bytes.push_back(static_cast<std::byte>(*c));
  return bytes;
}

std::string refusal_of_bytes(std::span<const std::byte> bytes) {
  return error_of(ErrorKind::plugin, [&] { parse_plugin_facts(bytes, "x.so"); });
}

std::string refusal_of_text(std::string_view text) { return refusal_of_bytes(std::as_bytes(std::span(text))); }

MemoryReport report() {
  return {.struct_size = sizeof(MemoryReport), .block_tokens = 64, .total = 3000, .used = 1000, .block_bytes = 10, .max_tokens = 1 << 20};
}

}  // namespace

TEST_CASE("a plugin in plain C is read, loaded and used") {
  const PluginRegistry registry({fixtures});
  const Mark mark;
  const PluginFacts facts = registry.inspect(parse_plugin_spec("plain-c"));
  CHECK_FALSE(mark.made());
  CHECK(facts.id == "plain-c");
  CHECK(facts.version == "1.0.0");
  CHECK(facts.summary == "half of what is left, in plain C");
  CHECK(facts.licence == "Apache-2.0");
  CHECK(facts.abi_major == 1);
  CHECK(facts.abi_minor == 0);
  CHECK(facts.compiler == "a C compiler");
  CHECK(facts.cpu_isas == "baseline");
  CHECK(facts.cuda_archs.empty());
  CHECK(facts.extensions == std::vector<std::string>{"lmkit.allocator/1"});
  REQUIRE(facts.options.size() == 2);
  CHECK(facts.options[0].name == "keep");
  CHECK(facts.options[0].type == OptionType::integer);
  CHECK(facts.options[0].default_value == "0");
  CHECK(facts.options[0].maximum == 1e9);
  CHECK(facts.options[1].choices == std::vector<std::string>{"calm", "wild"});
  CHECK_FALSE(facts.options[1].default_value);

  const LoadedPlugin plugin = registry.load(parse_plugin_spec("plain-c:keep=500"));
  CHECK(mark.made());
  CHECK_FALSE(plugin.kv());
  CHECK_FALSE(plugin.parallel());
  CHECK(AnyAllocator(*plugin.allocator()).kv_bytes(report()) == 750);
}

TEST_CASE("a plugin built against the first released headers works with this host") {
  for (const char* name : {"first-release", "sysv-hash"}) {
    const PluginRegistry registry({fixtures});
    const AnyAllocator policy(*registry.load(parse_plugin_spec(name)).allocator());
    CHECK(policy.kv_bytes(report()) == 1000);
    const PoolState pool{.struct_size = sizeof(PoolState), .total_blocks = 4, .free_blocks = 1, .cached_blocks = 1, .held_blocks = 2, .waiting = 0,
                         .holders = nullptr, .holder_count = 0};
    CHECK(policy.decide(pool, {.struct_size = sizeof(Demand), .blocks = 2, .sequence = {}}).verdict == LMKIT_GRANT);
    CHECK(policy.decide(pool, {.struct_size = sizeof(Demand), .blocks = 3, .sequence = {}}).verdict == LMKIT_WAIT);
  }
}

TEST_CASE("pointers in packed relocations are read like others") {
  if (!fs::exists(fixtures / "packed.so")) return;  // the linker has none
  CHECK(PluginRegistry({fixtures}).inspect(parse_plugin_spec("packed")).options.size() == 2);
}

TEST_CASE("a plugin's own reason reaches the user") {
  const PluginRegistry registry({fixtures});
  const auto source = *registry.load(parse_plugin_spec("plain-c:keep=13")).allocator();
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { AnyAllocator{source}; }), "plain-c cannot start: 13 brings bad luck");
}

TEST_CASE("a plugin for another ABI is refused with both versions, and none of its code runs") {
  CHECK_SAYS(refusal("old-major"), "built for ABI 0.0, this lmkit has 1.0; try a newer build of the plugin");
  CHECK_SAYS(refusal("new-major"), "built for ABI 2.0, this lmkit has 1.0; try a newer lmkit");
  CHECK_SAYS(refusal("new-minor"), "built for ABI 1.7, this lmkit has 1.0; try a newer lmkit");
  CHECK_SAYS(refusal("small-struct"), "lmkit_plugin_entry has a struct_size of 48; expected at least 72");
}

TEST_CASE("a shared object that is no plugin is refused, and none of its code runs") {
  CHECK_SAYS(refusal("no-symbol"), "no symbol lmkit_plugin_entry: this is a shared object, but not an lmkit plugin");
  CHECK_SAYS(refusal("a-function"), "its lmkit_plugin_entry is a function; expected constant data");
  CHECK_SAYS(refusal("zero-initialised"), "lmkit_plugin_entry has no value in the file (it lies in zero-initialised memory)");
  CHECK_SAYS(refusal("misnamed"), "the plugin inside is called 'another-name'; expected a file named after its plugin; try renaming it to another-name.so");
  CHECK_SAYS(refusal("bad-id"), "the plugin's id is 'Bad/Name'; expected at most 64 of a-z 0-9 - _");
  CHECK_SAYS(refusal("control-character"), "the plugin's version is not printable UTF-8");
  CHECK_SAYS(refusal("no-utf8"), "the plugin's version is not printable UTF-8");
  CHECK_SAYS(refusal("no-extension"), "the plugin has no extension");
}

TEST_CASE("options are checked before any code runs") {
  CHECK_SAYS(refusal("plain-c:keeep=1"), "did you mean 'keep'?");
  CHECK_SAYS(refusal("plain-c:keep=-1"), "keep=-1 is out of range; expected a whole number from 0 to 1000000000");
  CHECK_SAYS(refusal("plain-c:mode=wilder"), "expected one of calm, wild");
}

TEST_CASE("two plugins for one concept are refused, both named, and none of their code runs") {
  const Mark mark;
  const std::vector<PluginSpec> specs{parse_plugin_spec("plain-c"), parse_plugin_spec("first-release")};
  const std::string text = error_of(ErrorKind::plugin, [&] { PluginRegistry({fixtures}).compose(specs); });
  CHECK_SAYS(text, "plain-c and first-release both provide lmkit.allocator/1");
  CHECK_FALSE(mark.made());
}

TEST_CASE("a plugin that the dynamic loader cannot bind is refused with the missing symbol") {
  CHECK_SAYS(refusal("undefined-symbol"), "a_function_that_nobody_has");
  CHECK_SAYS(refusal("undefined-symbol"), "undefined-symbol cannot be loaded");
}

TEST_CASE("a table that keeps less than it promises is refused") {
  const auto refused = [](const char* name) {
    return error_of(ErrorKind::plugin, [&] { PluginRegistry({fixtures}).compose(std::vector{parse_plugin_spec(name)}); });
  };
  CHECK_SAYS(refused("no-table"), "no-table lists lmkit.allocator/1 but has no table for it");
  CHECK_SAYS(refused("small-table"), "its table lmkit.allocator/1 has a struct_size of 16; expected at least 40");
  CHECK_SAYS(refused("null-slot"), "slot 4 of its table lmkit.allocator/1 is null");
}

TEST_CASE("a file that is not ELF is called what it looks like") {
  CHECK_SAYS(refusal_of_text(""), "x.so: this is an empty file, not an ELF file; expected a shared object (.so)");
  CHECK_SAYS(refusal_of_text("hello\n"), "this is a text file, not an ELF file");
  CHECK_SAYS(refusal_of_text("#!/bin/sh\n"), "a script");
  CHECK_SAYS(refusal_of_text("GGUF\x03"), "a GGUF model");
  CHECK_SAYS(refusal_of_text("!<arch>\n"), "a static library");
  CHECK_SAYS(refusal_of_text("PK\x03\x04...."), "a ZIP archive");
  CHECK_SAYS(refusal_of_text("MZ\x90"), "a Windows program");
  CHECK_SAYS(refusal_of_text("\x7f" "ELF"), "the file is cut off inside its ELF header");
  CHECK_SAYS(refusal_of_bytes(bytes_of(LMKIT_TEST_OBJECT)), "this is an object file (.o)");
}

TEST_CASE("an ELF file of another kind of machine is refused") {
  const std::vector<std::byte> plugin = bytes_of(fixtures / "plain-c.so");
  const auto with = [&](std::size_t at, unsigned value) {
    std::vector<std::byte> bytes = plugin;
    bytes[at] = static_cast<std::byte>(value);
    return refusal_of_bytes(bytes);
  };
  CHECK_SAYS(with(EI_CLASS, ELFCLASS32), "a 32-bit ELF file; expected a 64-bit one");
  CHECK_SAYS(with(EI_DATA, ELFDATA2MSB), "this ELF file is big-endian; expected a little-endian one");
  CHECK_SAYS(with(offsetof(Elf64_Ehdr, e_machine), EM_RISCV), "this ELF file is for RISC-V; expected one for ");
  CHECK_SAYS(with(offsetof(Elf64_Ehdr, e_type), ET_EXEC), "this is a program");
  CHECK_SAYS(with(offsetof(Elf64_Ehdr, e_type), ET_CORE), "this is a core dump");
}

TEST_CASE("a plugin cut off anywhere is refused, or whole as far as it matters") {
  const std::vector<std::byte> plugin = bytes_of(fixtures / "plain-c.so");
  int refused = 0;
  for (std::size_t length = 0; length < plugin.size(); length += 1 + length / 200) {
    const auto part = std::span(plugin).first(length);
    try {
      const PluginFacts facts = parse_plugin_facts(part, "x.so");
      CHECK(facts.options.size() == 2);
    } catch (const Error& error) {
      ++refused;
      CHECK(error.kind() == ErrorKind::plugin);
    }
  }
  CHECK(refused > 100);
}

TEST_CASE("a plugin with damaged bytes is refused or read, and nothing else") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (const char* name : {"plain-c.so", "sysv-hash.so"}) {
    const std::vector<std::byte> plugin = bytes_of(fixtures / name);
    for (int round = 0; round < 5000; ++round) {
      std::vector<std::byte> bytes = plugin;
      for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
        const std::size_t header = random() % 2 ? 4096 : bytes.size();
        bytes[random() % header] = static_cast<std::byte>(random() % 3 ? random() : 0xff);
      }
      try {
        parse_plugin_facts(bytes, "x.so");
      } catch (const Error& error) {
        REQUIRE(error.kind() == ErrorKind::plugin);
      }
    }
  }
}
