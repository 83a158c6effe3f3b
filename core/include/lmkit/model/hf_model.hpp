// SPDX-License-Identifier: Apache-2.0
//
// A Hugging Face directory as a ModelFile: config.json, generation_config.json if there, the tokenizer's files, and
// model.safetensors or the shards that model.safetensors.index.json lists. Tensors get their GGUF names; weights stay
// in the mapped files, norms are widened to F32.
#pragma once

#include <lmkit/model/model_file.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lmkit {

// Throws Error(model).
std::unique_ptr<ModelFile> open_hf_directory(const std::string& directory);

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; nothing if Llama has no such tensor.
std::optional<std::string> gguf_name(std::string_view hf_name);

}  // namespace lmkit
