// SPDX-License-Identifier: Apache-2.0
//
// The models of tests/oracle/transformers_models.py, written again as Hugging Face directories from the seed, the config and
// the list of tensors in its fixture.
#pragma once

#include "safetensors_writer.hpp"
#include "temporary_directory.hpp"
#include "text_strings.hpp"
#include "tiny_tokenizer_json.hpp"

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

}  // namespace lmkit_test
