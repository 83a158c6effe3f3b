// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/model/hf_config.hpp>
#include <lmkit/model/hf_model.hpp>
#include <lmkit/model/mapped_file.hpp>
#include <lmkit/model/safetensors.hpp>
#include <lmkit/model/tensor_shapes.hpp>
#include <lmkit/text/tokenizer_json.hpp>

#include "json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <list>
#include <map>
#include <vector>

namespace lmkit {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t largest_json = 100'000'000;
constexpr std::int64_t largest_vector = std::int64_t{limits::heads} * limits::head_dim;

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

// Runs `read` on a mapped file of the directory; its errors name the file.
template <class Read>
auto with_file(const fs::path& directory, const std::string& name, Read read) try {
  return read(MappedFile((directory / name).string()));
} catch (const Error& error) {
  throw Error(error.kind(), fmt::format("{}: {}", name, error.found()), error.expected(), error.remedy());
}

std::string_view json_text_of(const MappedFile& file) {
  if (file.bytes().size() > largest_json) bad(fmt::format("{} bytes of JSON", file.bytes().size()), fmt::format("at most {}", largest_json));
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// A shard's name must stay inside the directory.
void check_shard_name(const std::string& name) {
  if (!name.ends_with(".safetensors") || name.find('/') != name.npos || name.find('\0') != name.npos)
    bad(fmt::format("a shard named {:?}", name), "a .safetensors file in the same directory");
}

// Shards by name, each with the tensors that the index expects in it.
using Shards = std::map<std::string, std::vector<std::string>>;

Shards read_index(const MappedFile& file) {
  const auto json = parse_json(json_text_of(file), "the index");
  const auto* map = json_object(json, "weight_map");
  if (!map || map->empty()) bad("\"weight_map\" is missing or empty", "a shard for each tensor");
  Shards shards;
  for (const auto& entry : *map) {
    const std::string tensor(entry.key());
    const auto shard = json_text(*map, tensor);
    if (!shard) bad(fmt::format("{:?} has no shard", tensor));
    check_shard_name(*shard);
    shards[*shard].push_back(tensor);
  }
  return shards;
}

Shards find_shards(const fs::path& directory) {
  constexpr const char *whole = "model.safetensors", *index = "model.safetensors.index.json";
  if (fs::exists(directory / whole)) return {{whole, {}}};
  if (fs::exists(directory / index)) return with_file(directory, index, read_index);
  bad("no weights", fmt::format("{} or {}", whole, index), "a directory with safetensors weights, or a GGUF file");
}

struct Shard {
  MappedFile file;
  Safetensors content;
  explicit Shard(const std::string& path) : file(path), content(file.bytes()) {}
};

class HfModel final : public ModelFile {
 public:
  explicit HfModel(const fs::path& directory) {
    const HfConfig config = read_hf_configs(directory / "config.json");
    config_ = config.model;
    shapes_ = tensor_shapes(config_);
    if (config_.name.empty()) config_.name = fs::canonical(directory).filename().string();
    for (const auto& [name, expected] : find_shards(directory)) add_shard(directory, name, expected);
    check_tensors();
    tokenizer_ = read_tokenizer(directory);
    complete_tokenizer(config, tokenizer_);
  }

  const ModelConfig& config() const noexcept override { return config_; }
  const TokenizerData& tokenizer() const noexcept override { return tokenizer_; }

  std::optional<MatrixView> find(std::string_view name) const noexcept override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    return found->second;
  }

 private:
  void add_shard(const fs::path& directory, const std::string& name, const std::vector<std::string>& expected) try {
    const auto& tensors = shards_.emplace_back((directory / name).string()).content.tensors();
    for (const std::string& tensor : expected)
      if (!tensors.contains(tensor)) bad(fmt::format("tensor {:?}, which the index expects, is not there", tensor), "the shards of one model");
    for (const auto& [hf_name, view] : tensors) {
      if (hf_name.ends_with("rotary_emb.inv_freq")) continue;  // a table that old checkpoints carry along
      const auto own_name = gguf_name(hf_name);
      if (own_name == "output.weight" && config_.tied_embeddings) continue;  // transformers ignores it too
      if (!own_name || !shapes_.contains(*own_name))
        bad(fmt::format("tensor {:?} is not part of the architecture {:?} as config.json describes it", hf_name, config_.architecture));
      const bool is_vector = own_name->ends_with("norm.weight") || own_name->ends_with(".bias");
      if (!tensors_.emplace(*own_name, is_vector ? widen(view) : view).second) bad(fmt::format("tensor {:?} is in two shards", hf_name), "each tensor once");
    }
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("{}: {}", name, error.found()), error.expected(), error.remedy());
  }

  MatrixView widen(const MatrixView& vector) {
    if (vector.format == WeightFormat::f32) return vector;
    if (vector.rows != 1 || vector.cols > largest_vector) bad(fmt::format("a vector of {} rows of {}", vector.rows, vector.cols), "one row");
    std::vector<float>& values = widened_.emplace_back(vector.cols);
    kernels::expand_row(vector, 0, values.data());
    return {WeightFormat::f32, 1, vector.cols, vector.cols * 4, reinterpret_cast<const std::byte*>(values.data())};
  }

  void check_tensors() const {
    if (!config_.tied_embeddings && !tensors_.contains("output.weight"))
      bad("tensor \"lm_head.weight\" is missing", "an output matrix, for \"tie_word_embeddings\" is not true");
    for (const auto& [name, shape] : shapes_) matrix(name, shape.rows, shape.cols);
  }

  ModelConfig config_;
  TensorShapes shapes_;
  TokenizerData tokenizer_;
  std::list<Shard> shards_;
  std::list<std::vector<float>> widened_;
  std::map<std::string, MatrixView, std::less<>> tensors_;
};

struct Rename {
  std::string_view hf, gguf;
};

constexpr std::array<Rename, 3> whole_names = {{{"model.embed_tokens.weight", "token_embd.weight"},
                                                {"model.norm.weight", "output_norm.weight"},
                                                {"lm_head.weight", "output.weight"}}};
constexpr std::array<Rename, 11> layer_names = {{{"input_layernorm", "attn_norm"},
                                                {"self_attn.q_proj", "attn_q"},
                                                {"self_attn.k_proj", "attn_k"},
                                                {"self_attn.v_proj", "attn_v"},
                                                {"self_attn.q_norm", "attn_q_norm"},
                                                {"self_attn.k_norm", "attn_k_norm"},
                                                {"self_attn.o_proj", "attn_output"},
                                                {"post_attention_layernorm", "ffn_norm"},
                                                {"mlp.gate_proj", "ffn_gate"},
                                                {"mlp.up_proj", "ffn_up"},
                                                {"mlp.down_proj", "ffn_down"}}};

}  // namespace

std::optional<std::string> gguf_name(std::string_view name) {
  for (const Rename& whole : whole_names)
    if (name == whole.hf) return std::string(whole.gguf);

  constexpr std::string_view front = "model.layers.";
  if (!name.starts_with(front)) return std::nullopt;
  name.remove_prefix(front.size());
  const std::string_view layer = name.substr(0, name.find_first_not_of("0123456789"));
  name.remove_prefix(layer.size());
  const std::string_view kind = name.ends_with(".bias") ? ".bias" : ".weight";
  if (layer.empty() || !name.starts_with('.') || !name.ends_with(kind)) return std::nullopt;
  const std::string_view part = name.substr(1, name.size() - std::min(name.size(), 1 + kind.size()));
  for (const Rename& known : layer_names)
    if (part == known.hf) return fmt::format("blk.{}.{}{}", layer, known.gguf, kind);
  return std::nullopt;
}

HfConfig read_hf_configs(const fs::path& file) {
  const fs::path directory = file.parent_path();
  constexpr const char* generation = "generation_config.json";
  HfConfig config = with_file(directory, file.filename().string(), [](const MappedFile& json) { return read_hf_config(json_text_of(json)); });
  if (!fs::exists(directory / generation)) return config;
  const auto more = with_file(directory, generation,
                              [&](const MappedFile& json) { return read_hf_eos(json_text_of(json), config.model.vocabulary); });
  config.eos.insert(config.eos.end(), more.begin(), more.end());
  return config;
}

void complete_tokenizer(const HfConfig& config, TokenizerData& data) {
  const auto rows = static_cast<std::size_t>(config.model.vocabulary);
  if (data.tokens.size() > rows)
    bad(fmt::format("the tokenizer has {} tokens, \"vocab_size\" is {}", data.tokens.size(), rows), "at most a row per token");
  for (std::size_t i = data.tokens.size(); i < rows; ++i) data.tokens.push_back(fmt::format("[PAD{}]", i));
  data.kinds.resize(rows, TokenKind::unused);

  if (!data.bos) data.bos = config.bos;
  if (!data.eos && !config.eos.empty()) data.eos = config.eos.front();
  auto& enders = data.end_of_turn;
  enders.insert(enders.end(), config.eos.begin(), config.eos.end());
  std::ranges::sort(enders);
  enders.erase(std::unique(enders.begin(), enders.end()), enders.end());
}

std::unique_ptr<ModelFile> open_hf_directory(const std::string& directory) { return std::make_unique<HfModel>(directory); }

}  // namespace lmkit
