// SPDX-License-Identifier: Apache-2.0
//
// ModelConfig: the hyperparameters of a decoder-only transformer, whichever file format they came from.
#pragma once

#include <lmkit/abi/kv.h>

#include <cstdint>
#include <string>

namespace lmkit {

struct RopeConfig {
  lmkit_rope_pairs pairs = LMKIT_ROPE_HALVES;
  int rotary_dim = 0;
  float base = 10000.0f;
  // Llama 3 frequency scaling (factor 1: none). Without an original context every frequency is divided by the factor,
  // which is linear scaling. A GGUF file brings Llama 3's as a tensor instead: rope_freqs.weight (rotary_dim / 2), what
  // each frequency is divided by.
  float factor = 1.0f, low_frequency_factor = 1.0f, high_frequency_factor = 1.0f;
  int original_context = 0;
};

struct ModelConfig {
  std::string architecture;  // a name in the registry: "llama", "qwen3"
  std::string name;          // for people
  int layers = 0;
  int hidden = 0;
  int ffn = 0;
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocabulary = 0;
  int max_context = 0;
  int window = 0;       // a token sees itself and the window - 1 before it; 0: all before it
  int window_from = 0;  // the first layer whose attention has the window
  float rms_eps = 1e-5f;
  bool tied_embeddings = false;
  bool qkv_bias = false;    // q, k and v have biases
  bool head_norms = false;  // each head of q and k is RMS-normalised before RoPE
  RopeConfig rope;

  int window_of(int layer) const noexcept { return layer < window_from ? 0 : window; }
};

// The most of each that a file may ask for: above every known model, and small enough for products in 64 bits.
namespace limits {
inline constexpr int layers = 4096, hidden = 1 << 20, heads = 4096, head_dim = 4096, vocabulary = 1 << 24, context = 1 << 28;
}

// Throws Error(model) naming the field that is out of its range or does not fit the others.
void check_config(const ModelConfig& config);

}  // namespace lmkit
