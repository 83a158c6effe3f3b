// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/registry.hpp>

#include <catch.hpp>
#include <error_of.hpp>
#include <temporary_directory.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

using namespace lmkit;
namespace fs = std::filesystem;

namespace {

const fs::path built = LMKIT_TEST_PLUGINS;

// A folder with copies of some of the plugins.
struct Folder : lmkit_test::TemporaryDirectory {
  explicit Folder(std::vector<std::string> plugins) {
    for (const std::string& name : plugins) fs::copy_file(built / (name + ".so"), path() / (name + ".so"));
  }
};

// The current directory for as long as it lives.
class Inside {
 public:
  explicit Inside(const fs::path& folder) : before_(fs::current_path()) { fs::current_path(folder); }
  ~Inside() { fs::current_path(before_); }

 private:
  fs::path before_;
};

std::string refusal(const PluginRegistry& registry, const std::string& spec) {
  return error_of(ErrorKind::plugin, [&] { registry.load(parse_plugin_spec(spec)); });
}

}  // namespace

TEST_CASE("a name is found in the first folder that has it") {
  const Folder first({"mem-ratio"}), second({"mem-ratio", "tp-threads"});
  const PluginRegistry registry({first.path(), "/no/such/folder", second.path()});
  CHECK(registry.locate(parse_plugin_spec("mem-ratio")) == first.path() / "mem-ratio.so");
  CHECK(registry.locate(parse_plugin_spec("tp-threads:size=3")) == second.path() / "tp-threads.so");

  const std::vector<FoundPlugin> plugins = registry.list();
  REQUIRE(plugins.size() == 3);
  CHECK(plugins[0].name == "mem-ratio");
  CHECK_FALSE(plugins[0].shadowed);
  CHECK(plugins[1].name == "mem-ratio");
  CHECK(plugins[1].shadowed);
  CHECK(plugins[2].facts.value().id == "tp-threads");
}

TEST_CASE("the list says why a file would be refused") {
  const Folder folder({"mem-ratio"});
  folder.write("broken.so", "not a library\n");
  folder.write("notes.txt", "not a plugin either\n");
  fs::create_directory(folder.path() / "folder.so");
  const std::vector<FoundPlugin> plugins = PluginRegistry({folder.path()}).list();
  REQUIRE(plugins.size() == 3);
  CHECK_FALSE(plugins[0].facts);
  CHECK_SAYS(plugins[0].problem, "this is a text file, not an ELF file");
  CHECK_SAYS(plugins[1].problem, "this is not a regular file");
  CHECK(plugins[2].facts);
}

TEST_CASE("the current directory is not searched, but the error says how to take a file from it") {
  const Folder folder({"mem-ratio"});
  const Inside inside(folder.path());
  const PluginRegistry nothing(std::vector<fs::path>{});
  CHECK_SAYS(refusal(nothing, "mem-ratio"), "try ./mem-ratio.so if you mean the file in the current directory");
  CHECK_SAYS(refusal(nothing, "mem-ratio.so:ratio=0.5"), "try ./mem-ratio.so if you mean");
  CHECK(nothing.load(parse_plugin_spec("./mem-ratio.so:ratio=0.5")).facts().id == "mem-ratio");
  CHECK_SAYS(refusal(nothing, "./mem-ratio"), "there is no file ./mem-ratio; try ./mem-ratio.so");
  CHECK_SAYS(refusal(nothing, "./none.so"), "there is no file ./none.so");
  CHECK_SAYS(refusal(nothing, "../" + folder.path().filename().string()), "is not a file; expected a shared object (.so)");
}

TEST_CASE("an unknown name gets the nearest one, or all there are") {
  const Folder folder({"mem-ratio", "tp-threads"});
  const PluginRegistry registry({folder.path()});
  CHECK_SAYS(refusal(registry, "mem-raito"), "there is no plugin 'mem-raito' in " + folder.path().string() + "; try --plugin mem-ratio");
  CHECK_SAYS(refusal(registry, "tp-threads.so"), "try --plugin tp-threads");
  CHECK_SAYS(refusal(registry, "banana"), "try one of mem-ratio, tp-threads");
  CHECK_SAYS(refusal(PluginRegistry({"/no/such/folder"}), "banana"), "there is no plugin 'banana' in /no/such/folder; try --plugin-path");
}

TEST_CASE("folders come from flags, then the environment, then a file, then beside the program; an empty one is none") {
  ::setenv("LMKIT_PLUGIN_PATH", ":/b::c:", 1);
  const std::vector<std::string> flags{"", "/a"}, file{"/d", ""};
  const std::vector<fs::path> folders = plugin_search_path(flags, file);
  ::unsetenv("LMKIT_PLUGIN_PATH");
  REQUIRE(folders.size() == 5);
  CHECK(folders[0] == "/a");
  CHECK(folders[1] == "/b");
  CHECK(folders[2] == "c");
  const fs::path program = fs::read_symlink("/proc/self/exe");
  CHECK(folders[3] == "/d");
  CHECK(folders[4] == program.parent_path().parent_path() / "lib/lmkit/plugins");
}

TEST_CASE("plugins compose, one for each concept") {
  const PluginRegistry registry({built});
  const std::vector<PluginSpec> specs{parse_plugin_spec("tp-threads:size=3"), parse_plugin_spec("mem-ratio:tokens=640")};
  const Composition composition = registry.compose(specs);
  REQUIRE(composition.parallel);
  REQUIRE(composition.allocator);
  CHECK_FALSE(composition.kv);
  CHECK(AnyParallel::Group(*composition.parallel).ranks().size == 3);
  CHECK(composition.plugins.size() == 2);
  CHECK(composition.allocator->settings.size() == 2);  // tokens, and max-share by default

  const std::vector<PluginSpec> twice{specs[1], parse_plugin_spec("mem-ratio:ratio=0.5")};
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { registry.compose(twice); }), "mem-ratio and mem-ratio both provide lmkit.allocator/1");
}
