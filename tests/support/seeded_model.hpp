// SPDX-License-Identifier: Apache-2.0
//
// The models of tests/oracle/transformers_models.py, written again from the seed, the config and the list of tensors in its
// fixture: as a Hugging Face directory, or as a GGUF file.
#pragma once

#include "safetensors_writer.hpp"
#include "temporary_directory.hpp"
#include "text_strings.hpp"
#include "tiny_tokenizer_json.hpp"

#include <lmkit/model/hf_model.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit_test {

// Exact in bf16: norms 0.5 to 1.5, biases -1 to 1, matrices -0.25 to 0.25.
inline Bytes seeded_weights(std::uint64_t seed, const std::string& name, std::uint64_t count, bool is_bf16) {
  SplitMix64 random(fnv({reinterpret_cast<const unsigned char*>(name.data()), name.size()}) + seed);
  Bytes out;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto byte = static_cast<int>(random.below(256));
    const float value = name.ends_with("norm.weight") ? static_cast<float>(64 + byte / 2) / 128
                                                      : static_cast<float>(byte - 128) / (name.ends_with("bias") ? 128 : 512);
    if (is_bf16) append(out, static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16));
    else append(out, value);
  }
  return out;
}

// Writes config.json, tokenizer.json and the weights, in as many shards as the fixture says.
inline void write_seeded_model(const TemporaryDirectory& directory, const boost::json::object& model) {
  directory.write("config.json", boost::json::serialize(model.at("config")));
  directory.write("tokenizer.json", tiny_tokenizer_json());
  const std::string dtype(model.at("dtype").as_string());
  const auto& tensors = model.at("tensors").as_array();
  const std::size_t shards = model.at("shards").to_number<std::size_t>();
  std::vector<SafetensorsWriter> files(shards);
  boost::json::object map;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string name(tensors[i].at(0).as_string());
    std::vector<std::uint64_t> shape;
    std::uint64_t count = 1;
    for (const auto& size : tensors[i].at(1).as_array()) count *= shape.emplace_back(size.to_number<std::uint64_t>());
    const std::size_t shard = i * shards / tensors.size();
    files[shard].tensor(name, dtype, shape, seeded_weights(model.at("seed").to_number<std::uint64_t>(), name, count, dtype == "BF16"));
    map[name] = fmt::format("model-{}.safetensors", shard);
  }
  if (shards == 1) {
    directory.write("model.safetensors", files[0].bytes());
    return;
  }
  directory.write("model.safetensors.index.json", boost::json::serialize(boost::json::object{{"weight_map", map}}));
  for (std::size_t i = 0; i < shards; ++i) directory.write(fmt::format("model-{}.safetensors", i), files[i].bytes());
}

// Llama's GGUF files have a rotated pair's rows side by side; config.json's models have them half a head apart.
inline Bytes rows_by_pair(const Bytes& matrix, std::size_t rows, std::size_t head_dim) {
  const std::size_t row = matrix.size() / rows, half = head_dim / 2;
  Bytes out;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t in_head = r % head_dim, source = r - in_head + in_head / 2 + in_head % 2 * half;
    out.insert(out.end(), matrix.begin() + static_cast<std::ptrdiff_t>(source * row), matrix.begin() + static_cast<std::ptrdiff_t>((source + 1) * row));
  }
  return out;
}

// In F32, with the keys that llama.cpp writes.
inline Bytes seeded_gguf(const boost::json::object& model) {
  const auto& config = model.at("config").as_object();
  const auto number = [&](const char* key) { return config.at(key).to_number<std::uint32_t>(); };
  const std::string type(config.at("model_type").as_string()), name = type == "mistral" ? "llama" : type;
  const std::uint32_t heads = number("num_attention_heads"), head_dim = config.contains("head_dim") ? number("head_dim") : number("hidden_size") / heads;
  GgufWriter out;
  out.text("general.architecture", name).u32(name + ".block_count", number("num_hidden_layers")).u32(name + ".embedding_length", number("hidden_size"));
  out.u32(name + ".feed_forward_length", number("intermediate_size")).u32(name + ".context_length", number("max_position_embeddings"));
  out.u32(name + ".attention.head_count", heads).u32(name + ".attention.head_count_kv", number("num_key_value_heads"));
  out.u32(name + ".attention.key_length", head_dim).u32(name + ".attention.value_length", head_dim).u32(name + ".rope.dimension_count", head_dim);
  out.f32(name + ".attention.layer_norm_rms_epsilon", 1e-6f).f32(name + ".rope.freq_base", 10000.0f);
  if (config.contains("rope_scaling"))  // linear
    out.text(name + ".rope.scaling.type", "linear").f32(name + ".rope.scaling.factor", config.at("rope_scaling").at("factor").to_number<float>());
  if (type == "mistral" && !config.at("sliding_window").is_null()) out.u32(name + ".attention.sliding_window", number("sliding_window"));

  TinyTokens tokens;
  for (std::size_t i = tokens.tokens.size(); i < number("vocab_size"); ++i) tokens.tokens.push_back(fmt::format("[PAD{}]", i));
  tokens.kinds.resize(tokens.tokens.size(), 5);
  out.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", name == "llama" ? "gpt-2" : "qwen2").texts("tokenizer.ggml.tokens", tokens.tokens);
  out.i32s("tokenizer.ggml.token_type", tokens.kinds).texts("tokenizer.ggml.merges", tokens.merges).u32("tokenizer.ggml.eos_token_id", 262);

  for (const auto& tensor : model.at("tensors").as_array()) {
    const std::string hf_name(tensor.at(0).as_string());
    std::vector<std::uint64_t> dims;
    std::uint64_t count = 1;
    for (const auto& size : tensor.at(1).as_array()) count *= *dims.insert(dims.begin(), size.to_number<std::uint64_t>());
    Bytes content = seeded_weights(model.at("seed").to_number<std::uint64_t>(), hf_name, count, false);
    const bool is_rotated = hf_name.ends_with("q_proj.weight") || hf_name.ends_with("k_proj.weight");
    if (name == "llama" && is_rotated) content = rows_by_pair(content, dims[1], head_dim);
    out.tensor(lmkit::gguf_name(hf_name).value(), dims, ggml_f32, content);
  }
  return out.bytes();
}

}  // namespace lmkit_test
