// SPDX-License-Identifier: Apache-2.0
//
// The lmkit program of this build, the model it answers with, and small model files to offend it with.
#pragma once

#include "process.hpp"

#include <catch.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/model/model_file.hpp>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace lmkit::test {

inline Outcome cli(const std::vector<std::string>& words, Surroundings around = {}) {
  around.environment.push_back("XDG_CONFIG_HOME=/nonexistent");  // the user's own lmkit.toml must not matter
  return run_program(LMKIT_TEST_BIN "/lmkit", words, around);
}

// The default model, if the cache has it; tools/test fetches it.
inline std::optional<std::string> default_model() {
  try {
    return resolve_model("");
  } catch (const Error&) {
    return std::nullopt;
  }
}

inline bool have_model() {
  const bool found = default_model().has_value();
  if (!found) WARN("the default model is not in the cache (tools/test fetches it): nothing was tested");
  return found;
}

// A GGUF file with no tensors that claims an architecture.
inline std::string tiny_gguf(const std::string& architecture) {
  std::string out = "GGUF";
  const auto number = [&](auto value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto text = [&](const std::string& value) {
    number(std::uint64_t{value.size()});
    out += value;
  };
  number(std::uint32_t{3});
  number(std::uint64_t{0});  // tensors
  number(std::uint64_t{2});  // keys
  text("general.architecture");
  number(std::uint32_t{8});  // a string
  text(architecture);
  text("general.name");
  number(std::uint32_t{8});
  text("a model of nothing");
  return out;
}

}  // namespace lmkit::test
