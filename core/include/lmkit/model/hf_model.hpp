// SPDX-License-Identifier: Apache-2.0
//
// A Hugging Face directory as a ModelFile: config.json, generation_config.json if there, the tokenizer's files, and
// model.safetensors or the shards that model.safetensors.index.json lists. Tensors get their GGUF names; weights stay
// in the mapped files, norms and biases are widened to F32.
#pragma once

#include <lmkit/model/hf_config.hpp>
#include <lmkit/model/model_file.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lmkit {

// Throws Error(model).
std::unique_ptr<ModelFile> open_hf_directory(const std::string& directory);

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; nothing if no known architecture has such a tensor.
std::optional<std::string> gguf_name(std::string_view hf_name);

// A config.json, with the end tokens of the generation_config.json beside it if there is one.
HfConfig read_hf_configs(const std::filesystem::path& config_json);

// Gives every row of the matrices a token (those beyond the tokenizer's are never meant to be chosen), and the tokenizer the
// special tokens that only the config knows.
void complete_tokenizer(const HfConfig& config, TokenizerData& tokenizer);

}  // namespace lmkit
