// SPDX-License-Identifier: Apache-2.0
//
// From GGUF metadata to ModelConfig and TokenizerData: what is read, what defaults, and what is refused.
#include <catch.hpp>
#include <gguf_writer.hpp>
#include <model_errors.hpp>
#include <temporary_directory.hpp>
#include <tiny_gguf.hpp>

#include <lmkit/model/gguf_model.hpp>
#include <lmkit/model/model_file.hpp>

#include <map>
#include <optional>

using namespace lmkit;
using namespace lmkit_test;

namespace {

// A small model's metadata, to be changed key by key.
class Metadata {
 public:
  Metadata() {
    text("general.architecture", "llama").u32("llama.block_count", 2).u32("llama.embedding_length", 64);
    u32("llama.feed_forward_length", 96).u32("llama.context_length", 256).u32("llama.attention.head_count", 4);
    f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).text("tokenizer.ggml.model", "gpt2");
    texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<|im_end|>"}).texts("tokenizer.ggml.merges", {"a b"});
  }
  Metadata& u32(const std::string& key, std::uint32_t value) { return set(key, [=](GgufWriter& w) { w.u32(key, value); }); }
  Metadata& f32(const std::string& key, float value) { return set(key, [=](GgufWriter& w) { w.f32(key, value); }); }
  Metadata& boolean(const std::string& key, bool value) { return set(key, [=](GgufWriter& w) { w.boolean(key, value); }); }
  Metadata& text(const std::string& key, const std::string& value) { return set(key, [=](GgufWriter& w) { w.text(key, value); }); }
  Metadata& texts(const std::string& key, const std::vector<std::string>& value) { return set(key, [=](GgufWriter& w) { w.texts(key, value); }); }
  Metadata& i32s(const std::string& key, const std::vector<std::int32_t>& value) { return set(key, [=](GgufWriter& w) { w.i32s(key, value); }); }
  Metadata& without(const std::string& key) {
    writes_.erase(key);
    return *this;
  }
  Metadata& tensor(const std::string& name, std::uint32_t type, std::uint64_t cols, std::uint64_t rows) {
    tensors_[name] = {type, cols, rows};
    return *this;
  }

  ModelConfig config() const {
    const Bytes bytes = file();
    return read_model_config(Gguf(bytes));
  }
  TokenizerData tokenizer() const {
    const Bytes bytes = file();
    return read_tokenizer(Gguf(bytes));
  }
  Error config_error() const { return error_of([&] { config(); }); }
  Error tokenizer_error() const { return error_of([&] { tokenizer(); }); }

 private:
  struct Shape {
    std::uint32_t type;
    std::uint64_t cols, rows;
  };

  Metadata& set(const std::string& key, std::function<void(GgufWriter&)> write) {
    writes_[key] = std::move(write);
    return *this;
  }
  Bytes file() const {
    GgufWriter writer;
    for (const auto& [key, write] : writes_) write(writer);
    for (const auto& [name, shape] : tensors_) writer.tensor(name, {shape.cols, shape.rows}, shape.type, Bytes(shape.cols * shape.rows * 4));
    return writer.bytes();
  }

  std::map<std::string, std::function<void(GgufWriter&)>> writes_;
  std::map<std::string, Shape> tensors_ = {{"token_embd.weight", {ggml_f32, 64, 4}}};
};

}  // namespace

TEST_CASE("a GGUF model's config is what its keys say, with the architecture's defaults") {
  const ModelConfig plain = Metadata().config();
  CHECK(plain.architecture == "llama");
  CHECK(plain.layers == 2);
  CHECK(plain.hidden == 64);
  CHECK(plain.ffn == 96);
  CHECK(plain.query_heads == 4);
  CHECK(plain.kv_heads == 4);
  CHECK(plain.head_dim == 16);
  CHECK(plain.vocabulary == 4);
  CHECK(plain.max_context == 256);
  CHECK(plain.window == 0);
  CHECK(plain.rms_eps == 1e-5f);
  CHECK(plain.tied_embeddings);
  CHECK(plain.rope.pairs == LMKIT_ROPE_ADJACENT);
  CHECK(plain.rope.rotary_dim == 16);
  CHECK(plain.rope.base == 10000.0f);
  CHECK(plain.rope.factor == 1.0f);

  Metadata own;
  own.u32("llama.attention.head_count_kv", 2).u32("llama.attention.key_length", 24).u32("llama.attention.value_length", 24);
  own.u32("llama.rope.dimension_count", 8).f32("llama.rope.freq_base", 5e5f).text("general.name", "Own");
  own.text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0f).tensor("output.weight", ggml_f32, 64, 4);
  const ModelConfig config = own.config();
  CHECK(config.name == "Own");
  CHECK(config.kv_heads == 2);
  CHECK(config.head_dim == 24);
  CHECK(config.rope.rotary_dim == 8);
  CHECK(config.rope.base == 5e5f);
  CHECK(config.rope.factor == 4.0f);
  CHECK(config.rope.original_context == 0);
  CHECK(!config.tied_embeddings);
}

TEST_CASE("each required key is named when it is missing or has another type") {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
                          "llama.context_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens"}) {
    CHECK_THAT(Metadata().without(key).config_error(), Says("metadata \"" + std::string(key) + "\" is missing"));
    if (std::string(key) != "tokenizer.ggml.tokens") CHECK_THAT(Metadata().boolean(key, true).config_error(), Says("metadata \"" + std::string(key) + "\" is bool"));
  }
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
    CHECK_THAT(Metadata().without(key).tokenizer_error(), Says("metadata \"" + std::string(key) + "\" is missing"));
    CHECK_THAT(Metadata().u32(key, 1).tokenizer_error(), Says("metadata \"" + std::string(key) + "\" is u32"));
  }
}

TEST_CASE("an unknown architecture is refused with the list of known ones") {
  CHECK_THAT(Metadata().text("general.architecture", "mamba").config_error(), Says("\"mamba\"", "llama, qwen2, qwen3"));
}

TEST_CASE("hyperparameters that make no sense are refused") {
  CHECK_THAT(Metadata().u32("llama.attention.head_count", 0).config_error(), Says("\"llama.attention.head_count\" is 0", "1 to"));
  CHECK_THAT(Metadata().u32("llama.attention.head_count_kv", 3).config_error(), Says("4 query heads over 3 key/value heads"));
  CHECK_THAT(Metadata().u32("llama.attention.head_count", 5).config_error(), Says("0 values per head"));
  CHECK_THAT(Metadata().u32("llama.attention.value_length", 8).config_error(), Says("values of 8 per head beside keys of 16"));
  CHECK_THAT(Metadata().u32("llama.rope.dimension_count", 7).config_error(), Says("RoPE over 7 of 16", "an even number"));
  CHECK_THAT(Metadata().u32("llama.rope.dimension_count", 18).config_error(), Says("RoPE over 18 of 16"));
  CHECK_THAT(Metadata().u32("llama.context_length", 0).config_error(), Says("\"llama.context_length\" is 0"));
  CHECK_THAT(Metadata().u32("llama.block_count", 4000000000u).config_error(), Says("\"llama.block_count\" is 4000000000", "1 to"));
  CHECK_THAT(Metadata().u32("llama.embedding_length", 1u << 31).config_error(), Says("\"llama.embedding_length\""));
  for (const float eps : {0.0f, -1e-5f, 1.0f}) CHECK_THAT(Metadata().f32("llama.attention.layer_norm_rms_epsilon", eps).config_error(), Says("epsilon"));
  for (const float base : {0.0f, -1.0f}) CHECK_THAT(Metadata().f32("llama.rope.freq_base", base).config_error(), Says("a RoPE base of"));
  CHECK_THAT(Metadata().text("llama.rope.scaling.type", "yarn").config_error(), Says("RoPE scaling \"yarn\""));
  CHECK_THAT(Metadata().text("llama.rope.scaling.type", "linear").config_error(), Says("\"llama.rope.scaling.factor\" is missing"));
  CHECK_THAT(Metadata().text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 0.0f).config_error(), Says("scaling factor of 0"));
}

TEST_CASE("tensors that contradict the config are refused") {
  CHECK_THAT(Metadata().tensor("token_embd.weight", ggml_f32, 64, 5).config_error(), Says("4 tokens, but token_embd.weight has 5 rows"));
  CHECK_THAT(Metadata().tensor("blk.0.attn_norm.weight", ggml_f16, 64, 1).config_error(), Says("\"blk.0.attn_norm.weight\" is F16", "F32"));
  CHECK_THAT(Metadata().tensor("output_norm.weight", ggml_f16, 64, 1).config_error(), Says("\"output_norm.weight\" is F16", "F32"));
  CHECK_THAT(Metadata().tensor("blk.1.attn_q.bias", ggml_f32, 64, 1).config_error(), Says("\"blk.1.attn_q.bias\" is not part"));
  CHECK_THAT(Metadata().tensor("blk.0.ffn_up_exps.weight", ggml_f32, 64, 1).config_error(), Says("\"blk.0.ffn_up_exps.weight\" is not part"));
}

TEST_CASE("Qwen's keys have its prefix, its tensors biases or head norms, and its RoPE pairs halves") {
  for (const std::string name : {"qwen2", "qwen3"}) {
    Metadata qwen;
    for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "context_length", "attention.head_count", "attention.layer_norm_rms_epsilon"})
      qwen.without(std::string("llama.") + key);
    qwen.text("general.architecture", name).u32(name + ".block_count", 1).u32(name + ".embedding_length", 64).u32(name + ".feed_forward_length", 96);
    qwen.u32(name + ".context_length", 256).u32(name + ".attention.head_count", 4).u32(name + ".attention.key_length", 32);
    qwen.u32(name + ".attention.value_length", 32).f32(name + ".attention.layer_norm_rms_epsilon", 1e-6f);
    const ModelConfig config = qwen.config();
    CHECK(config.architecture == name);
    CHECK(config.rope.pairs == LMKIT_ROPE_HALVES);
    CHECK(config.head_dim == 32);
    CHECK(config.qkv_bias == (name == "qwen2"));
    CHECK(config.head_norms == (name == "qwen3"));
    const std::string own = name == "qwen2" ? "blk.0.attn_q.bias" : "blk.0.attn_q_norm.weight";
    const std::string other = name == "qwen3" ? "blk.0.attn_q.bias" : "blk.0.attn_q_norm.weight";
    CHECK_NOTHROW(Metadata(qwen).tensor(own, ggml_f32, name == "qwen2" ? 128 : 32, 1).config());
    CHECK_THAT(Metadata(qwen).tensor(own, ggml_f16, 32, 1).config_error(), Says("\"" + own + "\" is F16", "F32"));
    CHECK_THAT(Metadata(qwen).tensor(other, ggml_f32, 32, 1).config_error(), Says("\"" + other + "\" is not part"));
    CHECK_THAT(Metadata(qwen).tensor("blk.0.attn_output.bias", ggml_f32, 64, 1).config_error(), Says("\"blk.0.attn_output.bias\" is not part"));
  }
}

TEST_CASE("Llama 3's frequency divisors are one per pair") {
  CHECK_NOTHROW(Metadata().tensor("rope_freqs.weight", ggml_f32, 8, 1).config());
  CHECK_THAT(Metadata().tensor("rope_freqs.weight", ggml_f32, 16, 1).config_error(), Says("1 rows of 16 F32", "1 row of 8 F32"));
  CHECK_THAT(Metadata().tensor("rope_freqs.weight", ggml_f16, 8, 1).config_error(), Says("1 rows of 8 F16", "1 row of 8 F32"));
}

TEST_CASE("a GGUF tokenizer is what its keys say") {
  const TokenizerData plain = Metadata().tokenizer();
  CHECK(plain.model == "bpe");
  CHECK(plain.pre_tokenizer == "gpt-2");
  CHECK(plain.tokens == std::vector<std::string>{"a", "b", "ab", "<|im_end|>"});
  CHECK(plain.kinds == std::vector<TokenKind>(4, TokenKind::normal));
  CHECK(plain.merges == std::vector<std::string>{"a b"});
  CHECK(!plain.bos);
  CHECK(!plain.eos);
  CHECK(plain.end_of_turn.empty());  // a token of that spelling that is not a control token is text
  CHECK(!plain.add_bos);
  CHECK(plain.chat_template.empty());

  Metadata own;
  own.text("tokenizer.ggml.pre", "smollm").i32s("tokenizer.ggml.token_type", {6, 5, 2, 3}).text("tokenizer.chat_template", "{{ x }}");
  own.u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 1).u32("tokenizer.ggml.unknown_token_id", 2);
  own.u32("tokenizer.ggml.padding_token_id", 3000000)  // nobody reads it
     .u32("tokenizer.ggml.eot_token_id", 1).u32("tokenizer.ggml.eom_token_id", 2);
  own.boolean("tokenizer.ggml.add_bos_token", true);
  const TokenizerData data = own.tokenizer();
  CHECK(data.pre_tokenizer == "smollm");
  CHECK(data.kinds == std::vector<TokenKind>{TokenKind::byte, TokenKind::unused, TokenKind::unknown, TokenKind::control});
  CHECK(data.bos == 0);
  CHECK(data.eos == 1);
  CHECK(data.end_of_turn == std::vector<TokenId>{1, 2, 3});
  CHECK(data.add_bos);
  CHECK(data.chat_template == "{{ x }}");
  CHECK(Metadata().text("tokenizer.ggml.pre", "llama-bpe").tokenizer().add_bos);
  CHECK(Metadata().text("tokenizer.ggml.pre", "tekken").tokenizer().add_bos);
  CHECK(!Metadata().text("tokenizer.ggml.pre", "qwen2").tokenizer().add_bos);
}

TEST_CASE("tokenizer metadata that contradicts itself is refused") {
  CHECK_THAT(Metadata().text("tokenizer.ggml.model", "llama").tokenizer_error(), Says("tokenizer \"llama\"", "byte-level BPE"));
  CHECK_THAT(Metadata().u32("tokenizer.ggml.eos_token_id", 4).tokenizer_error(), Says("\"tokenizer.ggml.eos_token_id\" is 4", "0 to 3"));
  CHECK_THAT(Metadata().i32s("tokenizer.ggml.token_type", {1, 1, 1}).tokenizer_error(), Says("3 token types for 4 tokens"));
  CHECK_THAT(Metadata().i32s("tokenizer.ggml.token_type", {1, 0, 1, 1}).tokenizer_error(), Says("element 1 of metadata \"tokenizer.ggml.token_type\" is 0"));
  CHECK_THAT(Metadata().i32s("tokenizer.ggml.token_type", {1, 1, 7, 1}).tokenizer_error(), Says("element 2"));
  CHECK_THAT(Metadata().texts("tokenizer.ggml.tokens", {}).config_error(), Says("0 tokens in the vocabulary"));
}

TEST_CASE("open_model maps a file, finds its tensors by name and shape, and names the file in errors") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("tiny.gguf", tiny_gguf().bytes());
  const auto model = open_model(path);
  CHECK(model->config().name == "tiny");
  CHECK(model->tokenizer().tokens.size() == 264);
  CHECK(model->tokenizer().end_of_turn == std::vector<TokenId>{260, 262});
  CHECK(model->matrix("blk.1.attn_k.weight", 32, 64).rows == 32);
  CHECK(model->find("output_norm.weight")->cols == 64);
  CHECK(!model->find("output.weight"));
  CHECK_THAT(error_of([&] { model->matrix("output.weight", 264, 64); }), Says("\"output.weight\" is missing"));
  CHECK_THAT(error_of([&] { model->matrix("blk.0.attn_k.weight", 64, 64); }), Says("has 32 rows of 64 values", "64 rows of 64 values"));

  CHECK_THAT(error_of([&] { open_model(directory.write("empty.gguf", "")); }), Says("empty.gguf: cannot read it: it is empty"));
  CHECK_THAT(error_of([&] { open_model(directory.write("text.gguf", "hello")); }), Says("text.gguf: the file starts with"));
  CHECK_THAT(error_of([&] { open_model("/nonexistent/x.gguf"); }), Says("/nonexistent/x.gguf: cannot read it"));
  CHECK_THAT(error_of([&] { open_model("/dev/null"); }), Says("not a regular file"));
}
