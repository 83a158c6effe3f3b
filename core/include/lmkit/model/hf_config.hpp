// SPDX-License-Identifier: Apache-2.0
//
// config.json of a Hugging Face model directory: Llama, Mistral, Qwen2 and Qwen3 "ForCausalLM", with those classes' defaults
// for what is absent. Errors are Error(model) and name the key.
#pragma once

#include <lmkit/model/model_config.hpp>
#include <lmkit/text/tokenizer_data.hpp>

#include <optional>
#include <string_view>
#include <vector>

namespace lmkit {

struct HfConfig {
  ModelConfig model;
  std::optional<TokenId> bos;
  std::vector<TokenId> eos;  // none, one or several
};

HfConfig read_hf_config(std::string_view json);

// Its eos_token_id, for generation_config.json adds to config.json's.
std::vector<TokenId> read_hf_eos(std::string_view json, int vocabulary);

}  // namespace lmkit
