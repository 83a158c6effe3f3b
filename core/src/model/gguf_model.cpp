// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/gguf_model.hpp>
#include <lmkit/model/tensor_shapes.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace lmkit {
namespace {

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

template <class T>
T required(std::optional<T> value, std::string_view key) {
  if (!value) bad(fmt::format("metadata {:?} is missing", key), "a GGUF file of a language model", "converting the model again");
  return *std::move(value);
}

// What an architecture's name implies.
struct Family {
  std::string_view name;
  lmkit_rope_pairs pairs;
  bool qkv_bias = false;
  bool head_norms = false;
};

// A file of Mistral's calls itself "llama".
constexpr Family families[] = {{.name = "llama", .pairs = LMKIT_ROPE_ADJACENT},
                               {.name = "qwen2", .pairs = LMKIT_ROPE_HALVES, .qkv_bias = true},
                               {.name = "qwen3", .pairs = LMKIT_ROPE_HALVES, .head_norms = true}};

const Family& family_of(std::string_view architecture) {
  const auto found = std::ranges::find(families, architecture, &Family::name);
  if (found != std::end(families)) return *found;
  std::vector<std::string_view> known;
  for (const Family& family : families) known.push_back(family.name);
  bad(fmt::format("the architecture {:?}", architecture), fmt::format("one of: {}", fmt::join(known, ", ")), "a model of one of these architectures");
}

// The keys of one architecture.
class Keys {
 public:
  Keys(const Gguf& gguf, std::string architecture) : gguf_(gguf), prefix_(std::move(architecture) + ".") {}

  int integer(const char* name, std::int64_t low, std::int64_t high) const {
    return static_cast<int>(required(gguf_.integer(prefix_ + name, low, high), prefix_ + name));
  }
  int integer(const char* name, std::int64_t low, std::int64_t high, int otherwise) const {
    return static_cast<int>(gguf_.integer(prefix_ + name, low, high).value_or(otherwise));
  }
  float number(const char* name) const { return static_cast<float>(required(gguf_.number(prefix_ + name), prefix_ + name)); }
  float number(const char* name, float otherwise) const {
    return static_cast<float>(gguf_.number(prefix_ + name).value_or(otherwise));
  }
  std::string text(const char* name, const char* otherwise) const {
    return std::string(gguf_.text(prefix_ + name).value_or(otherwise));
  }

 private:
  const Gguf& gguf_;
  std::string prefix_;
};

RopeConfig read_rope(const Keys& keys, lmkit_rope_pairs pairs, int head_dim) {
  RopeConfig rope;
  rope.pairs = pairs;
  rope.rotary_dim = keys.integer("rope.dimension_count", 0, limits::head_dim, head_dim);
  rope.base = keys.number("rope.freq_base", 10000.0f);
  const std::string scaling = keys.text("rope.scaling.type", "none");
  if (scaling == "linear") rope.factor = keys.number("rope.scaling.factor");
  else if (scaling != "none") bad(fmt::format("RoPE scaling {:?}", scaling), "none, linear or Llama 3's frequency factors");
  return rope;
}

// The tensors that decide about the config.
void check_tensors(const Gguf& gguf, const ModelConfig& config) {
  const auto& tensors = gguf.tensors();
  const auto embedding = tensors.find("token_embd.weight");
  if (embedding == tensors.end()) bad("tensor \"token_embd.weight\" is missing", "a GGUF file of a whole model");
  if (embedding->second.rows != config.vocabulary)
    bad(fmt::format("{} tokens, but token_embd.weight has {} rows", config.vocabulary, embedding->second.rows), "one row per token");
  const TensorShapes shapes = tensor_shapes(config);
  for (const auto& [name, view] : tensors) {
    if ((name.ends_with("norm.weight") || name.ends_with(".bias")) && view.format != WeightFormat::f32)
      bad(fmt::format("tensor {:?} is {}", name, block_of(view.format).name), "F32 for norms and biases", "converting the model again");
    if (!shapes.contains(name) && name != "rope_freqs.weight")
      bad(fmt::format("tensor {:?} is not part of the architecture {:?} as it is known here", name, config.architecture));
  }
  const auto divisors = tensors.find("rope_freqs.weight");
  if (divisors == tensors.end()) return;
  const MatrixView& view = divisors->second;
  if (view.format != WeightFormat::f32 || view.rows != 1 || view.cols * 2 != config.rope.rotary_dim)
    bad(fmt::format("tensor \"rope_freqs.weight\" has {} rows of {} {} values", view.rows, view.cols, block_of(view.format).name),
        fmt::format("1 row of {} F32 values", config.rope.rotary_dim / 2));
}

}  // namespace

ModelConfig read_model_config(const Gguf& gguf) {
  ModelConfig config;
  const Family& family = family_of(required(gguf.text("general.architecture"), "general.architecture"));
  config.architecture = family.name;
  config.name = gguf.text("general.name").value_or("");

  const Keys keys(gguf, config.architecture);
  config.layers = keys.integer("block_count", 1, limits::layers);
  config.hidden = keys.integer("embedding_length", 1, limits::hidden);
  config.ffn = keys.integer("feed_forward_length", 1, limits::hidden);
  config.query_heads = keys.integer("attention.head_count", 1, limits::heads);
  config.kv_heads = keys.integer("attention.head_count_kv", 1, limits::heads, config.query_heads);
  const bool divides = config.hidden % config.query_heads == 0;
  config.head_dim = keys.integer("attention.key_length", 1, limits::head_dim, divides ? config.hidden / config.query_heads : 0);
  if (const int value_dim = keys.integer("attention.value_length", 1, limits::head_dim, config.head_dim); value_dim != config.head_dim)
    bad(fmt::format("values of {} per head beside keys of {}", value_dim, config.head_dim), "the same for both");
  config.max_context = keys.integer("context_length", 1, limits::context);
  config.window = keys.integer("attention.sliding_window", 0, limits::context, 0);
  config.rms_eps = keys.number("attention.layer_norm_rms_epsilon");
  config.qkv_bias = family.qkv_bias;
  config.head_norms = family.head_norms;
  config.rope = read_rope(keys, family.pairs, config.head_dim);

  const auto tokens = gguf.values().find("tokenizer.ggml.tokens");
  if (tokens == gguf.values().end()) bad("metadata \"tokenizer.ggml.tokens\" is missing", "a GGUF file with its tokenizer");
  config.vocabulary = static_cast<int>(std::min<std::uint64_t>(tokens->second.count, limits::vocabulary + 1));
  config.tied_embeddings = !gguf.tensors().contains("output.weight");
  check_config(config);
  check_tensors(gguf, config);
  return config;
}

// ---- tokenizer

namespace {

constexpr std::string_view tokens_key = "tokenizer.ggml.tokens", kinds_key = "tokenizer.ggml.token_type";

std::vector<TokenKind> read_kinds(const Gguf& gguf, std::size_t tokens) {
  std::vector<TokenKind> kinds(tokens, TokenKind::normal);
  const auto numbers = gguf.integers(kinds_key);
  if (!numbers) return kinds;
  if (numbers->size() != tokens) bad(fmt::format("{} token types for {} tokens", numbers->size(), tokens), "one per token");
  for (std::size_t i = 0; i < tokens; ++i) {
    const std::int64_t number = (*numbers)[i];
    if (number < 1 || number > 6) bad(fmt::format("element {} of metadata {:?} is {}", i, kinds_key, number), "1 to 6");
    kinds[i] = static_cast<TokenKind>(number - 1);
  }
  return kinds;
}

bool ends_turn(const TokenizerData& data, std::size_t token) {
  const bool special = data.kinds[token] == TokenKind::control || data.kinds[token] == TokenKind::user_defined;
  return special && std::ranges::find(turn_enders, data.tokens[token]) != std::end(turn_enders);
}

}  // namespace

TokenizerData read_tokenizer(const Gguf& gguf) {
  TokenizerData data;
  const auto model = required(gguf.text("tokenizer.ggml.model"), "tokenizer.ggml.model");
  if (model != "gpt2") bad(fmt::format("tokenizer {:?}", model), "\"gpt2\" (byte-level BPE)", "a model with a byte-level BPE tokenizer");
  data.model = "bpe";
  data.pre_tokenizer = gguf.text("tokenizer.ggml.pre").value_or("gpt-2");
  if (data.pre_tokenizer == "default") data.pre_tokenizer = "gpt-2";
  data.tokens = required(gguf.texts(tokens_key), tokens_key);
  data.kinds = read_kinds(gguf, data.tokens.size());
  data.merges = required(gguf.texts("tokenizer.ggml.merges"), "tokenizer.ggml.merges");

  const auto token = [&](std::string_view key) -> std::optional<TokenId> {
    const auto id = gguf.integer(fmt::format("tokenizer.ggml.{}_token_id", key), 0, static_cast<std::int64_t>(data.tokens.size()) - 1);
    return id ? std::optional(static_cast<TokenId>(*id)) : std::nullopt;
  };
  data.bos = token("bos");
  data.eos = token("eos");
  data.add_bos = gguf.boolean("tokenizer.ggml.add_bos_token").value_or(data.pre_tokenizer == "llama-bpe" || data.pre_tokenizer == "tekken");
  data.chat_template = gguf.text("tokenizer.chat_template").value_or("");

  for (const auto ender : {data.eos, token("eot"), token("eom")})
    if (ender) data.end_of_turn.push_back(*ender);
  for (std::size_t i = 0; i < data.tokens.size(); ++i)
    if (ends_turn(data, i)) data.end_of_turn.push_back(static_cast<TokenId>(i));
  std::ranges::sort(data.end_of_turn);
  data.end_of_turn.erase(std::unique(data.end_of_turn.begin(), data.end_of_turn.end()), data.end_of_turn.end());
  return data;
}

}  // namespace lmkit
