// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/hf_config.hpp>

#include "json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace lmkit {
namespace {

using boost::json::object;

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

int required(const object& json, std::string_view key, int high) {
  const auto value = json_integer(json, key, 1, high);
  if (!value) bad(fmt::format("{:?} is missing", key), fmt::format("an integer from 1 to {}", high), "the model's own config.json");
  return static_cast<int>(*value);
}

int integer(const object& json, std::string_view key, int low, int high, int otherwise) {
  return static_cast<int>(json_integer(json, key, low, high).value_or(otherwise));
}

float number(const object& json, std::string_view key, double otherwise) {
  return static_cast<float>(json_number(json, key).value_or(otherwise));
}

float required_number(const object& json, std::string_view key) {
  const auto value = json_number(json, key);
  if (!value) bad(fmt::format("{:?} is missing", key), "a number");
  return static_cast<float>(*value);
}

// What a transformers class takes for granted.
struct Family {
  std::string_view type;  // "model_type", which is also the architecture's name here
  int kv_heads = 0;       // 0: as many as query heads
  int head_dim = 0;       // 0: the query heads' share of the hidden values
  int max_context = 0;
  bool qkv_bias = false;
  bool head_norms = false;
};

constexpr Family families[] = {{.type = "llama", .max_context = 2048},
                               {.type = "mistral", .kv_heads = 8, .max_context = 131072},
                               {.type = "qwen2", .kv_heads = 32, .max_context = 32768, .qkv_bias = true},
                               {.type = "qwen3", .kv_heads = 32, .head_dim = 128, .max_context = 32768, .head_norms = true}};

const Family& family_of(const object& json) {
  const auto type = json_text(json, "model_type");
  if (!type) bad("\"model_type\" is missing", "a transformers config.json", "the model's own config.json");
  const auto found = std::ranges::find(families, *type, &Family::type);
  if (found != std::end(families)) return *found;
  std::vector<std::string_view> known;
  for (const Family& family : families) known.push_back(family.type);
  bad(fmt::format("\"model_type\" is {:?}", *type), fmt::format("one of: {}", fmt::join(known, ", ")), "a model of one of these architectures");
}

bool is_null(const object& json, std::string_view key) {
  const auto* value = json.if_contains(key);
  return value && value->is_null();
}

int read_kv_heads(const object& json, const Family& family, int query_heads) {
  const bool one_each = family.kv_heads == 0 || is_null(json, "num_key_value_heads");
  return integer(json, "num_key_value_heads", 1, limits::heads, one_each ? query_heads : family.kv_heads);
}

int read_head_dim(const object& json, const Family& family, const ModelConfig& model) {
  const bool divides = model.hidden % model.query_heads == 0;
  return integer(json, "head_dim", 1, limits::head_dim, family.head_dim > 0 ? family.head_dim : divides ? model.hidden / model.query_heads : 0);
}

void read_layer_types(const std::vector<std::string>& types, ModelConfig& model) {
  if (static_cast<int>(types.size()) != model.layers)
    bad(fmt::format("\"layer_types\" has {} entries", types.size()), fmt::format("{}, one for each layer", model.layers));
  const auto first = std::ranges::find(types, "sliding_attention");
  model.window_from = static_cast<int>(first - types.begin());
  for (int i = 0; i < model.layers; ++i)
    if (types[i] != (i < model.window_from ? "full_attention" : "sliding_attention") || (i >= model.window_from && model.window == 0))
      bad(fmt::format("\"layer_types\" says {:?} of layer {}", types[i], i),
          "\"full_attention\", and \"sliding_attention\" in the layers after those if there is a window");
}

// Mistral: all layers have the window. Qwen: only if asked for, the layers from max_window_layers on, or those that
// layer_types says.
void read_window(const object& json, ModelConfig& model) {
  const bool mistral = model.architecture == "mistral", qwen = model.architecture.starts_with("qwen");
  const bool wanted = mistral ? !is_null(json, "sliding_window") : qwen && json_boolean(json, "use_sliding_window").value_or(false);
  if (wanted) {
    model.window = integer(json, "sliding_window", 1, limits::context, 4096);
    model.window_from = mistral ? 0 : integer(json, "max_window_layers", 0, limits::layers, 28);
  }
  if (const auto types = json_texts(json, "layer_types"); !types.empty()) read_layer_types(types, model);
  if (model.window_from >= model.layers) model.window = model.window_from = 0;
}

// rope_theta and rope_scaling, or both together as rope_parameters (transformers 5).
RopeConfig read_rope(const object& json, int head_dim) {
  static const object none;
  const object* together = json_object(json, "rope_parameters");
  const object* apart = json_object(json, "rope_scaling");
  const object& scaling = together ? *together : apart ? *apart : none;

  RopeConfig rope;
  rope.pairs = LMKIT_ROPE_HALVES;
  rope.rotary_dim = head_dim;
  if (number(json, "partial_rotary_factor", 1.0) != 1.0f) bad("\"partial_rotary_factor\" is not 1", "RoPE over whole heads");
  rope.base = number(scaling, "rope_theta", number(json, "rope_theta", 10000.0));
  const std::string type = json_text(scaling, "rope_type").value_or(json_text(scaling, "type").value_or("default"));
  if (type == "default") return rope;
  rope.factor = required_number(scaling, "factor");
  if (type == "linear") return rope;
  if (type != "llama3") bad(fmt::format("RoPE scaling {:?}", type), "default, linear or llama3");
  rope.low_frequency_factor = required_number(scaling, "low_freq_factor");
  rope.high_frequency_factor = required_number(scaling, "high_freq_factor");
  rope.original_context = required(scaling, "original_max_position_embeddings", limits::context);
  return rope;
}

// What would change the result if it were passed over.
void refuse_unsupported(const object& json) {
  if (json_object(json, "quantization_config"))
    bad("\"quantization_config\": a quantised checkpoint", "F32, F16 or BF16 weights", "the unquantised model, or a GGUF file of it");
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (json_boolean(json, key).value_or(false)) bad(fmt::format("{:?} is true", key), "a model without such biases");
  if (const auto activation = json_text(json, "hidden_act").value_or("silu"); activation != "silu")
    bad(fmt::format("\"hidden_act\" is {:?}", activation), "\"silu\"");
}

std::vector<TokenId> read_eos(const object& json, int vocabulary) {
  std::vector<TokenId> tokens;
  for (const std::int64_t token : json_integers(json, "eos_token_id", 0, vocabulary - 1)) tokens.push_back(static_cast<TokenId>(token));
  return tokens;
}

}  // namespace

HfConfig read_hf_config(std::string_view text) {
  const object json = parse_json(text, "config.json");
  const Family& family = family_of(json);
  refuse_unsupported(json);

  HfConfig config;
  ModelConfig& model = config.model;
  model.architecture = family.type;
  model.name = json_text(json, "_name_or_path").value_or("");
  model.layers = required(json, "num_hidden_layers", limits::layers);
  model.hidden = required(json, "hidden_size", limits::hidden);
  model.ffn = required(json, "intermediate_size", limits::hidden);
  model.query_heads = required(json, "num_attention_heads", limits::heads);
  model.kv_heads = read_kv_heads(json, family, model.query_heads);
  model.head_dim = read_head_dim(json, family, model);
  model.vocabulary = required(json, "vocab_size", limits::vocabulary);
  model.max_context = integer(json, "max_position_embeddings", 1, limits::context, family.max_context);
  model.rms_eps = number(json, "rms_norm_eps", 1e-6);
  model.tied_embeddings = json_boolean(json, "tie_word_embeddings").value_or(false);
  model.qkv_bias = family.qkv_bias;
  model.head_norms = family.head_norms;
  read_window(json, model);
  model.rope = read_rope(json, model.head_dim);
  check_config(model);

  if (const auto bos = json_integer(json, "bos_token_id", 0, model.vocabulary - 1)) config.bos = static_cast<TokenId>(*bos);
  config.eos = read_eos(json, model.vocabulary);
  return config;
}

std::vector<TokenId> read_hf_eos(std::string_view text, int vocabulary) {
  return read_eos(parse_json(text, "generation_config.json"), vocabulary);
}

}  // namespace lmkit
