// SPDX-License-Identifier: Apache-2.0
//
// The registry of architectures: a type with load and forward each, and one name in the list.
#pragma once

#include <lmkit/model/llama.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

template <class... Architectures>
struct ModelList {};

using Models = ModelList<Llama, Mistral, Qwen2, Qwen3>;

template <ParallelStrategy P, KvBackend K>
using Forward = void (*)(Step<P, K>&) noexcept;

using LoadWeights = Weights (*)(const ModelConfig&, const RankShape&, WeightLoader&);

std::vector<std::string_view> known_architectures();

// Throws Error(model) for an architecture that is not in the list.
LoadWeights load_weights_of(const ModelConfig& config);

template <ParallelStrategy P, KvBackend K, class... Architectures>
Forward<P, K> forward_of(const ModelConfig& config, ModelList<Architectures...>) noexcept {
  Forward<P, K> found = nullptr;
  ((config.architecture == Architectures::architecture ? void(found = &Architectures::template forward<P, K>) : void()), ...);
  return found;
}

}  // namespace lmkit
