// SPDX-License-Identifier: Apache-2.0
//
// Where models are kept: $XDG_CACHE_HOME/lmkit/models, or ~/.cache/lmkit/models.
#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/model/model_file.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace lmkit {
namespace {

namespace fs = std::filesystem;

constexpr const char* default_model = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr const char* extension = ".gguf";

// Empty if the environment names no place. The XDG specification ignores relative paths.
fs::path cache_directory() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return value && value[0] == '/' ? fs::path(value) : fs::path();
  };
  const fs::path cache = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (!cache.empty()) return cache / "lmkit" / "models";
  return home.empty() ? home : home / ".cache" / "lmkit" / "models";
}

bool is_model(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return fs::exists(path / "config.json", ignored);
  return path.extension() == extension && fs::is_regular_file(path, ignored);
}

// Sorted names of the cached models, as --model-path takes them: without .gguf.
std::vector<std::string> cached_models(const fs::path& cache) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (auto entry = fs::directory_iterator(cache, ignored); entry != fs::directory_iterator(); entry.increment(ignored))
    if (is_model(entry->path()))
      names.push_back(entry->path().extension() == extension ? entry->path().stem().string() : entry->path().filename().string());
  std::ranges::sort(names);
  return names;
}

}  // namespace

std::string resolve_model(const std::string& name) {
  const fs::path cache = cache_directory();
  std::error_code ignored;
  if (name.empty()) {
    const fs::path path = cache / default_model;
    if (!cache.empty() && fs::exists(path, ignored)) return path.string();
    throw Error(ErrorKind::model, fmt::format("the default model is missing: {}", path.string()), "SmolLM2-135M-Instruct in the model cache",
                "tools/quickstart, which gets it, or --model-path");
  }
  if (fs::exists(name, ignored)) return name;
  if (name.find('/') == name.npos && !cache.empty())
    for (const fs::path& path : {cache / name, cache / (name + extension)})
      if (is_model(path)) return path.string();

  const auto models = cached_models(cache);
  const std::string nearest = did_you_mean(name, models);
  throw Error(ErrorKind::model, fmt::format("no model {:?}, neither a path nor in {}", name, cache.string()),
              "a GGUF file, a Hugging Face directory or the name of a cached model",
              nearest.empty() ? "tools/quickstart, which gets the default model" : fmt::format("--model-path {}", nearest));
}

}  // namespace lmkit
