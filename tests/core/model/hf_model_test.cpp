// SPDX-License-Identifier: Apache-2.0
//
// A Hugging Face directory, whole and in shards, becomes a ModelFile with GGUF names; what is missing, hostile or would
// be passed over is an Error(model) that names the file.
#include <catch.hpp>
#include <model_errors.hpp>
#include <safetensors_writer.hpp>
#include <temporary_directory.hpp>
#include <tiny_tokenizer_json.hpp>

#include <lmkit/model/hf_model.hpp>
#include <lmkit/model/model_file.hpp>

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <span>

using namespace lmkit;
using namespace lmkit_test;

namespace {

constexpr int hidden = 16, ffn = 24, vocabulary = 272;  // 264 tokens and 8 rows of padding

std::string config_json(const std::string& more = R"("tie_word_embeddings":true)", const std::string& type = "llama") {
  return R"({"model_type":")" + type + R"(","hidden_size":16,"intermediate_size":24,"num_attention_heads":2,"num_key_value_heads":1,)"
         R"("num_hidden_layers":1,"vocab_size":272,"bos_token_id":261,"eos_token_id":262)" + (more.empty() ? "" : "," + more) + "}";
}

struct Tensor {
  std::string name;
  std::uint64_t rows, cols;
};

const std::vector<Tensor> tensors = {{"model.embed_tokens.weight", vocabulary, hidden},
                                     {"model.layers.0.self_attn.q_proj.weight", hidden, hidden},
                                     {"model.layers.0.self_attn.k_proj.weight", hidden / 2, hidden},
                                     {"model.layers.0.self_attn.v_proj.weight", hidden / 2, hidden},
                                     {"model.layers.0.self_attn.o_proj.weight", hidden, hidden},
                                     {"model.layers.0.mlp.gate_proj.weight", ffn, hidden},
                                     {"model.layers.0.mlp.up_proj.weight", ffn, hidden},
                                     {"model.layers.0.mlp.down_proj.weight", hidden, ffn},
                                     {"model.layers.0.input_layernorm.weight", 1, hidden},
                                     {"model.layers.0.post_attention_layernorm.weight", 1, hidden},
                                     {"model.norm.weight", 1, hidden}};

// Tensors with random bf16 content, which is kept for comparison.
Bytes shard(std::span<const Tensor> tensors, std::map<std::string, Bytes>& content) {
  static std::mt19937 random(std::random_device{}());
  SafetensorsWriter writer;
  for (const Tensor& t : tensors) {
    const std::vector<std::uint64_t> shape = t.rows == 1 ? std::vector{t.cols} : std::vector{t.rows, t.cols};
    writer.tensor(t.name, "BF16", shape, content[t.name] = random_matrix(random, ggml_bf16, t.rows, t.cols));
  }
  return writer.bytes();
}

// A directory with everything but weights.
struct Directory : TemporaryDirectory {
  Directory() {
    write("config.json", config_json());
    write("tokenizer.json", tiny_tokenizer_json());
  }
  std::map<std::string, Bytes> content;
  Directory& whole() {
    write("model.safetensors", shard(tensors, content));
    return *this;
  }
  std::unique_ptr<ModelFile> open() const { return open_model(path().string()); }
  Error error() const { return error_of([&] { open(); }); }
};

void check_content(const ModelFile& model, std::span<const Tensor> tensors, const std::map<std::string, Bytes>& content) {
  for (const Tensor& t : tensors) {
    INFO(t.name);
    const MatrixView view = model.matrix(gguf_name(t.name).value(), static_cast<std::int64_t>(t.rows), static_cast<std::int64_t>(t.cols));
    const Bytes& bytes = content.at(t.name);
    if (t.rows > 1) {
      CHECK(view.format == WeightFormat::bf16);
      CHECK(std::memcmp(view.data, bytes.data(), bytes.size()) == 0);
      continue;
    }
    REQUIRE(view.format == WeightFormat::f32);
    for (std::uint64_t i = 0; i < t.cols; ++i) {  // a bf16 is the upper half of a float
      std::uint16_t half;
      float value;
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      std::memcpy(&value, view.data + 4 * i, 4);
      CHECK(std::bit_cast<std::uint32_t>(value) == std::uint32_t{half} << 16);
    }
  }
}

}  // namespace

TEST_CASE("Hugging Face names become GGUF names") {
  CHECK(gguf_name("model.embed_tokens.weight") == "token_embd.weight");
  CHECK(gguf_name("model.norm.weight") == "output_norm.weight");
  CHECK(gguf_name("lm_head.weight") == "output.weight");
  CHECK(gguf_name("model.layers.0.input_layernorm.weight") == "blk.0.attn_norm.weight");
  CHECK(gguf_name("model.layers.17.self_attn.k_proj.weight") == "blk.17.attn_k.weight");
  CHECK(gguf_name("model.layers.3.mlp.down_proj.weight") == "blk.3.ffn_down.weight");
  CHECK(gguf_name("model.layers.0.self_attn.q_proj.bias") == "blk.0.attn_q.bias");
  CHECK(gguf_name("model.layers.0.self_attn.k_norm.weight") == "blk.0.attn_k_norm.weight");
  for (const char* name : {"", "model.layers.", "model.layers..weight", "model.layers.0.weight", "model.layers.x.mlp.up_proj.weight",
                           "model.layers.0mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.scale", "model.layers.0..weight", "model.layers.0.mlp.mlp.up_proj.weight",
                           "model.layers.weight", "lm_head.weight.x"})
    CHECK(!gguf_name(name));
}

TEST_CASE("a directory with one weight file opens with its tensors where they lie, norms widened") {
  Directory directory;
  const auto model = directory.whole().open();
  CHECK(model->config().rope.pairs == LMKIT_ROPE_HALVES);
  CHECK(model->config().name == directory.path().filename());
  check_content(*model, tensors, directory.content);
  CHECK(!model->find("output.weight"));
}

TEST_CASE("the tokenizer of a directory is filled up to the matrices' rows and takes the config's tokens") {
  Directory directory;
  directory.write("generation_config.json", R"({"eos_token_id":[260,262]})");
  const auto model = directory.whole().open();
  const TokenizerData& data = model->tokenizer();
  REQUIRE(data.tokens.size() == vocabulary);
  REQUIRE(data.kinds.size() == vocabulary);
  CHECK(data.kinds.back() == TokenKind::unused);
  CHECK(data.bos == 261);
  CHECK(data.eos.has_value());
  CHECK(data.end_of_turn == std::vector<TokenId>{260, 262});
}

TEST_CASE("a directory in shards is the same model") {
  Directory directory;
  const auto name_of = [](std::size_t i) { return i < 5 ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors"; };
  std::string map;
  for (std::size_t i = 0; i < tensors.size(); ++i) map += (i ? ",\"" : "\"") + tensors[i].name + "\":\"" + name_of(i) + "\"";
  directory.write(name_of(0), shard(std::span(tensors).first(5), directory.content));
  directory.write(name_of(5), shard(std::span(tensors).subspan(5), directory.content));
  directory.write("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":{)" + map + "}}");
  check_content(*directory.open(), tensors, directory.content);
}

TEST_CASE("biases and head norms are found where the architecture has them, widened to F32") {
  for (const std::string type : {"qwen2", "qwen3"}) {
    const std::vector<Tensor> more = type == "qwen2" ? std::vector<Tensor>{{"model.layers.0.self_attn.q_proj.bias", 1, hidden},
                                                                           {"model.layers.0.self_attn.k_proj.bias", 1, hidden / 2},
                                                                           {"model.layers.0.self_attn.v_proj.bias", 1, hidden / 2}}
                                                     : std::vector<Tensor>{{"model.layers.0.self_attn.q_norm.weight", 1, hidden / 2},
                                                                           {"model.layers.0.self_attn.k_norm.weight", 1, hidden / 2}};
    std::vector<Tensor> all = tensors;
    all.insert(all.end(), more.begin(), more.end());
    Directory directory;
    directory.write("config.json", config_json(R"("tie_word_embeddings":true,"head_dim":8)", type));
    directory.write("model.safetensors", shard(all, directory.content));
    check_content(*directory.open(), all, directory.content);

    directory.write("config.json", config_json(R"("tie_word_embeddings":true,"head_dim":8)", type == "qwen2" ? "qwen3" : "qwen2"));
    CHECK_THAT(directory.error(), Says("is not part of the architecture"));
    directory.write("config.json", config_json(R"("tie_word_embeddings":true,"head_dim":8)", type));
    directory.whole();
    CHECK_THAT(directory.error(), Says(type == "qwen2" ? "\"blk.0.attn_k.bias\" is missing" : "\"blk.0.attn_k_norm.weight\" is missing"));
  }
}

TEST_CASE("an index must name shards that are files of its directory") {
  for (const char* name : {"../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "passwd", "..", ""}) {
    Directory directory;
    directory.write("model.safetensors.index.json", R"({"weight_map":{"model.norm.weight":")" + std::string(name) + "\"}}");
    CHECK_THAT(directory.error(), Says("model.safetensors.index.json: a shard named \"" + std::string(name), "in the same directory"));
  }
  Directory directory;
  directory.write("model.safetensors.index.json", R"({"weight_map":{"model.norm.weight":"gone.safetensors"}})");
  CHECK_THAT(directory.error(), Says("gone.safetensors: cannot read it"));
  directory.write("model.safetensors.index.json", R"({"weight_map":{}})");
  CHECK_THAT(directory.error(), Says("\"weight_map\" is missing or empty"));
  directory.write("model.safetensors.index.json", R"({"weight_map":{"x":1}})");
  CHECK_THAT(directory.error(), Says("\"x\" has the wrong type"));
}

TEST_CASE("an index that says a tensor is in another shard than it is is refused") {
  Directory directory;
  directory.write("one.safetensors", shard(tensors, directory.content));
  directory.write("model.safetensors.index.json", R"({"weight_map":{"model.norm.weight":"one.safetensors","lm_head.weight":"one.safetensors"}})");
  CHECK_THAT(directory.error(), Says("one.safetensors: tensor \"lm_head.weight\", which the index expects, is not there"));
}

TEST_CASE("a directory without its parts names the part") {
  Directory directory;
  CHECK_THAT(directory.error(), Says("no weights", "model.safetensors.index.json"));
  directory.whole();
  std::filesystem::remove(directory.path() / "tokenizer.json");
  CHECK_THAT(directory.error(), Says("tokenizer.json"));
  std::filesystem::remove(directory.path() / "config.json");
  CHECK_THAT(directory.error(), Says("config.json: cannot read it"));
}

TEST_CASE("tensors that are unknown, missing, twice or of another shape are refused") {
  Directory directory;
  directory.write("model.safetensors", SafetensorsWriter().tensor("model.layers.0.self_attn.q_proj.bias", "F32", {16}, Bytes(64)).bytes());
  CHECK_THAT(directory.error(), Says("model.safetensors: tensor \"model.layers.0.self_attn.q_proj.bias\" is not part of the architecture \"llama\""));
  directory.write("model.safetensors", SafetensorsWriter().tensor("model.layers.1.input_layernorm.weight", "F32", {16}, Bytes(64)).bytes());
  CHECK_THAT(directory.error(), Says("\"model.layers.1.input_layernorm.weight\" is not part of"));  // there is one layer
  directory.write("model.safetensors", SafetensorsWriter().tensor("model.norm.weight", "F32", {16}, Bytes(64)).bytes());
  CHECK_THAT(directory.error(), Says("\"blk.0.attn_k.weight\" is missing"));
  directory.write("model.safetensors", SafetensorsWriter().tensor("model.norm.weight", "BF16", {2, 16}, Bytes(64)).bytes());
  CHECK_THAT(directory.error(), Says("a vector of 2 rows"));

  directory.whole().write("config.json", config_json(""));
  CHECK_THAT(directory.error(), Says("\"lm_head.weight\" is missing"));
  directory.write("config.json", R"({"model_type":"llama","hidden_size":16,"intermediate_size":24,"num_attention_heads":2,"num_key_value_heads":1,"num_hidden_layers":1,)"
                                 R"("vocab_size":271,"tie_word_embeddings":true})");
  CHECK_THAT(directory.error(), Says("\"token_embd.weight\" has 272 rows of 16", "271 rows of 16"));

  Directory twice;
  SafetensorsWriter norm;
  norm.tensor("model.norm.weight", "F32", {16}, Bytes(64));
  twice.write("a.safetensors", norm.bytes());
  twice.write("b.safetensors", norm.tensor("lm_head.weight", "F32", {16}, Bytes(64)).bytes());
  twice.write("model.safetensors.index.json", R"({"weight_map":{"model.norm.weight":"a.safetensors","lm_head.weight":"b.safetensors"}})");
  CHECK_THAT(twice.error(), Says("tensor \"model.norm.weight\" is in two shards"));
}
