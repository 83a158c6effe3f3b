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
  // Llama 3 frequency scaling (factor 1: none)
  float factor = 1.0f, low_frequency_factor = 1.0f, high_frequency_factor = 1.0f;
  int original_context = 0;
};

struct ModelConfig {
  std::string architecture;  // a name in the registry: "llama"
  std::string name;          // for people
  int layers = 0;
  int hidden = 0;
  int ffn = 0;
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocabulary = 0;
  int max_context = 0;
  int window = 0;  // sliding attention window; 0: none
  float rms_eps = 1e-5f;
  bool tied_embeddings = false;
  RopeConfig rope;
};

}  // namespace lmkit
