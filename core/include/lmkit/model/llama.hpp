// SPDX-License-Identifier: Apache-2.0
//
// Llama (arXiv:2302.13971, arXiv:2407.21783): pre-norm decoder with grouped-query attention, RoPE and SwiGLU; and those that
// differ from it in what ModelConfig says.
#pragma once

#include <lmkit/model/layers.hpp>

namespace lmkit {

struct Llama {
  static constexpr const char* architecture = "llama";

  static Weights load(const ModelConfig& config, const RankShape& shape, WeightLoader& loader);

  // Runs the step's tokens through the model: fills their pages, and logits for the rows that want them.
  template <ParallelStrategy P, KvBackend K>
  static void forward(Step<P, K>& s) noexcept {
    const Activations& act = s.act;
    embed(s);
    for (int i = 0; i < s.config.layers; ++i) {
      const LayerWeights& layer = s.weights.layers[i];

      norm_linear(s, layer.attention_norm, layer.qkv, act.qkv);
      norm_heads(s, layer.head_norms);
      append(s, i);
      attend(s, i);
      add_linear(s, layer.attention_output, act.attended);

      norm_gated_linear(s, layer.ffn_norm, layer.gate_up);
      add_linear(s, layer.down, act.activated);
    }
    project_logits(s);
  }
};

// Mistral (arXiv:2310.06825): a sliding attention window.
struct Mistral : Llama {
  static constexpr const char* architecture = "mistral";
};

// Qwen2 (arXiv:2407.10671): biases on q, k and v; a window in the upper layers if wanted.
struct Qwen2 : Llama {
  static constexpr const char* architecture = "qwen2";
};

// Qwen3 (arXiv:2505.09388): the heads of q and k are normalised before RoPE.
struct Qwen3 : Llama {
  static constexpr const char* architecture = "qwen3";
};

}  // namespace lmkit
