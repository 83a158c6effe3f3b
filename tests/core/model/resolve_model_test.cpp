// SPDX-License-Identifier: Apache-2.0
//
// What --model-path names, with a model cache of the test's own.
#include <catch.hpp>
#include <model_errors.hpp>
#include <temporary_directory.hpp>

#include <lmkit/model/model_file.hpp>

#include <cstdlib>
#include <optional>

using namespace lmkit;
using namespace lmkit_test;

namespace {

// Sets an environment variable for one scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("a model is a path, or a name in the cache with or without its ending") {
  const TemporaryDirectory cache;
  const Environment environment("XDG_CACHE_HOME", cache.path().string());
  const std::string file = cache.write("lmkit/models/Some-Model.Q8_0.gguf", "x");
  cache.write("lmkit/models/Directory-Model/config.json", "{}");
  cache.write("lmkit/models/notes.txt", "x");

  CHECK(resolve_model(file) == file);
  CHECK(resolve_model("Some-Model.Q8_0.gguf") == file);
  CHECK(resolve_model("Some-Model.Q8_0") == file);
  CHECK(resolve_model("Directory-Model") == (cache.path() / "lmkit/models/Directory-Model").string());

  const Error near = error_of([] { resolve_model("some-model.q8-0"); });
  CHECK_THAT(near, Says("no model \"some-model.q8-0\""));
  CHECK(near.remedy() == "--model-path Some-Model.Q8_0");
  CHECK(error_of([] { resolve_model("something else"); }).remedy().find("tools/quickstart") != std::string::npos);
  CHECK_THAT(error_of([] { resolve_model("notes.txt"); }), Says("no model"));
  CHECK_THAT(error_of([] { resolve_model("../models/Some-Model.Q8_0"); }), Says("no model"));
  CHECK_THAT(error_of([&] { resolve_model(cache.path() / "gone.gguf"); }), Says("gone.gguf"));
}

TEST_CASE("an empty name is the default model, and its absence names the command that gets it") {
  const TemporaryDirectory home;
  const Environment home_variable("HOME", home.path().string());
  const Environment relative_is_ignored("XDG_CACHE_HOME", "relative");
  const Error missing = error_of([] { resolve_model(""); });
  CHECK_THAT(missing, Says("the default model is missing"));
  CHECK(missing.remedy().find("tools/quickstart") != std::string::npos);
  const std::string file = home.write(".cache/lmkit/models/SmolLM2-135M-Instruct.Q4_1.gguf", "x");
  CHECK(resolve_model("") == file);
}
