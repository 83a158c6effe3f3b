// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/models.hpp>

#include <fmt/format.h>

namespace lmkit {
namespace {

template <class... Architectures>
std::vector<std::string_view> names(ModelList<Architectures...>) {
  return {Architectures::architecture...};
}

template <class... Architectures>
LoadWeights find(std::string_view architecture, ModelList<Architectures...>) noexcept {
  LoadWeights found = nullptr;
  ((architecture == Architectures::architecture ? void(found = &Architectures::load) : void()), ...);
  return found;
}

}  // namespace

std::vector<std::string_view> known_architectures() { return names(Models{}); }

LoadWeights load_weights_of(const ModelConfig& config) {
  if (const LoadWeights load = find(config.architecture, Models{})) return load;
  throw Error(ErrorKind::model, fmt::format("the architecture \"{}\" is unknown", config.architecture),
              fmt::format("one of: {}", fmt::join(known_architectures(), ", ")), "another model");
}

}  // namespace lmkit
