// SPDX-License-Identifier: Apache-2.0
//
// config.json of Llama, Mistral, Qwen2 and Qwen3: real ones' values, the defaults of transformers' classes, and what is refused.
#include <catch.hpp>
#include <model_errors.hpp>

#include <lmkit/model/hf_config.hpp>

#include <fmt/format.h>

#include <string>

using namespace lmkit;
using namespace lmkit_test;

namespace {

// The keys without which there is no model, and more.
std::string config_with(const std::string& more) {
  return R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_attention_heads":4,"num_hidden_layers":2,"vocab_size":300)" +
         (more.empty() ? "" : "," + more) + "}";
}

Error error_with(const std::string& more) {
  return error_of([&] { read_hf_config(config_with(more)); });
}

// The same of another type; 64 heads, so that the classes' 8 and 32 key/value heads fit.
std::string config_of(const std::string& type, const std::string& more = {}) {
  return R"({"model_type":")" + type + R"(","hidden_size":1024,"intermediate_size":96,"num_attention_heads":64,"num_hidden_layers":4,"vocab_size":300)" +
         (more.empty() ? "" : "," + more) + "}";
}

ModelConfig model_of(const std::string& type, const std::string& more = {}) { return read_hf_config(config_of(type, more)).model; }

}  // namespace

TEST_CASE("what a config.json does not say is LlamaConfig's default") {
  const HfConfig config = read_hf_config(config_with(""));
  CHECK(config.model.architecture == "llama");
  CHECK(config.model.layers == 2);
  CHECK(config.model.hidden == 64);
  CHECK(config.model.ffn == 96);
  CHECK(config.model.query_heads == 4);
  CHECK(config.model.kv_heads == 4);
  CHECK(config.model.head_dim == 16);
  CHECK(config.model.vocabulary == 300);
  CHECK(config.model.max_context == 2048);
  CHECK(config.model.rms_eps == 1e-6f);
  CHECK(!config.model.tied_embeddings);
  CHECK(config.model.rope.pairs == LMKIT_ROPE_HALVES);
  CHECK(config.model.rope.rotary_dim == 16);
  CHECK(config.model.rope.base == 10000.0f);
  CHECK(config.model.rope.factor == 1.0f);
  CHECK(!config.bos);
  CHECK(config.eos.empty());
}

TEST_CASE("each class has its own defaults") {
  const ModelConfig mistral = model_of("mistral"), qwen2 = model_of("qwen2"), qwen3 = model_of("qwen3");
  CHECK(mistral.architecture == "mistral");
  CHECK(mistral.kv_heads == 8);
  CHECK(mistral.head_dim == 16);
  CHECK(mistral.max_context == 131072);
  CHECK(!mistral.qkv_bias);
  CHECK(!mistral.head_norms);
  for (const ModelConfig& qwen : {qwen2, qwen3}) {
    CHECK(qwen.kv_heads == 32);
    CHECK(qwen.max_context == 32768);
    CHECK(qwen.window == 0);
    CHECK(qwen.rope.pairs == LMKIT_ROPE_HALVES);
  }
  CHECK(qwen2.head_dim == 16);
  CHECK(qwen2.qkv_bias);
  CHECK(!qwen2.head_norms);
  CHECK(qwen3.head_dim == 128);
  CHECK(qwen3.rope.rotary_dim == 128);
  CHECK(!qwen3.qkv_bias);
  CHECK(qwen3.head_norms);
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) CHECK(model_of(type, R"("num_key_value_heads":null)").kv_heads == 64);
  CHECK(model_of("mistral", R"("head_dim":32,"num_key_value_heads":4)").head_dim == 32);
}

TEST_CASE("Mistral has its window in every layer, unless it is null") {
  const auto window = [](const std::string& more) { return model_of("mistral", more); };
  CHECK(window("").window == 4096);
  CHECK(window("").window_of(0) == 4096);
  CHECK(window(R"("sliding_window":77)").window_of(3) == 77);
  CHECK(window(R"("sliding_window":null)").window == 0);
  CHECK_THAT(error_of([&] { window(R"("sliding_window":0)"); }), Says("\"sliding_window\" is 0"));
}

TEST_CASE("Qwen has a window only if asked for, from a layer on") {
  for (const char* type : {"qwen2", "qwen3"}) {
    const auto read = [&](const std::string& more) { return model_of(type, more); };
    CHECK(read(R"("sliding_window":77,"max_window_layers":0)").window == 0);
    CHECK(read(R"("use_sliding_window":false,"sliding_window":77,"max_window_layers":0)").window == 0);
    CHECK(read(R"("use_sliding_window":true,"sliding_window":77)").window == 0);  // 28 layers without, of 4
    const ModelConfig half = read(R"("use_sliding_window":true,"sliding_window":77,"max_window_layers":2)");
    CHECK(half.window_of(1) == 0);
    CHECK(half.window_of(2) == 77);
    const std::string types = R"("layer_types":["full_attention","full_attention","full_attention","sliding_attention"])";
    CHECK(read(R"("use_sliding_window":true,"sliding_window":77,"max_window_layers":2,)" + types).window_from == 3);
    CHECK(read(R"("layer_types":["full_attention","full_attention","full_attention","full_attention"])").window == 0);
    CHECK_THAT(error_of([&] { read(types); }), Says("\"sliding_attention\" of layer 3"));
    CHECK_THAT(error_of([&] { read(R"("layer_types":["full_attention"])"); }), Says("\"layer_types\" has 1 entries", "4"));
    CHECK_THAT(error_of([&] { read(R"("use_sliding_window":true,"layer_types":["sliding_attention","full_attention","full_attention","full_attention"])"); }),
               Says("\"full_attention\" of layer 1"));
    CHECK_THAT(error_of([&] { read(R"("layer_types":["full_attention",1,2,3])"); }), Says("\"layer_types\" has the wrong type"));
  }
}

TEST_CASE("a config.json like Llama 3.2's is read whole") {
  const HfConfig config = read_hf_config(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256})");
  CHECK(config.model.kv_heads == 8);
  CHECK(config.model.head_dim == 64);
  CHECK(config.model.max_context == 131072);
  CHECK(config.model.rms_eps == 1e-5f);
  CHECK(config.model.tied_embeddings);
  CHECK(config.model.rope.base == 500000.0f);
  CHECK(config.model.rope.factor == 32.0f);
  CHECK(config.model.rope.low_frequency_factor == 1.0f);
  CHECK(config.model.rope.high_frequency_factor == 4.0f);
  CHECK(config.model.rope.original_context == 8192);
  CHECK(config.bos == 128000);
  CHECK(config.eos == std::vector<TokenId>{128001, 128008, 128009});
}

TEST_CASE("RoPE scaling is read in the old and the new spelling") {
  const HfConfig linear = read_hf_config(config_with(R"("rope_scaling":{"type":"linear","factor":4})"));
  CHECK(linear.model.rope.factor == 4.0f);
  CHECK(linear.model.rope.original_context == 0);
  const HfConfig together = read_hf_config(config_with(R"("rope_parameters":{"rope_theta":100000,"rope_type":"default"})"));
  CHECK(together.model.rope.base == 100000.0f);
  CHECK(together.model.rope.factor == 1.0f);
  CHECK(read_hf_config(config_with(R"("rope_scaling":null,"eos_token_id":null)")).model.rope.factor == 1.0f);
}

TEST_CASE("a missing or senseless value names its key") {
  for (const char* key : {"model_type", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"}) {
    std::string text = config_with("");
    text[text.find(key)] = 'X';
    CHECK_THAT(error_of([&] { read_hf_config(text); }), Says(fmt::format("{:?} is missing", key)));
  }
  CHECK_THAT(error_with(R"("num_key_value_heads":3)"), Says("4 query heads over 3"));
  CHECK_THAT(error_with(R"("num_key_value_heads":0)"), Says("\"num_key_value_heads\" is 0"));
  CHECK_THAT(error_with(R"("num_key_value_heads":"2")"), Says("\"num_key_value_heads\" has the wrong type", "an integer"));
  CHECK_THAT(error_with(R"("head_dim":15)"), Says("RoPE over 15"));
  CHECK_THAT(error_with(R"("rms_norm_eps":0)"), Says("epsilon of 0"));
  CHECK_THAT(error_with(R"("rms_norm_eps":1e999)"), Says(""));
  CHECK_THAT(error_with(R"("max_position_embeddings":99999999999)"), Says("\"max_position_embeddings\" is 99999999999"));
  CHECK_THAT(error_with(R"("tie_word_embeddings":1)"), Says("\"tie_word_embeddings\" has the wrong type"));
  CHECK_THAT(error_with(R"("eos_token_id":300)"), Says("\"eos_token_id\" is 300", "0 to 299"));
  CHECK_THAT(error_with(R"("eos_token_id":[1,-1])"), Says("\"eos_token_id\" is -1"));
  CHECK_THAT(error_with(R"("rope_scaling":{"rope_type":"llama3","factor":8})"), Says("\"low_freq_factor\" is missing"));
  CHECK_THAT(error_with(R"("rope_scaling":{"rope_type":"yarn","factor":8})"), Says("RoPE scaling \"yarn\""));
  CHECK_THAT(error_of([] { model_of("qwen2", R"("rope_scaling":{"type":"yarn","factor":4})"); }), Says("RoPE scaling \"yarn\"", "default, linear or llama3"));
  CHECK_THAT(error_with(R"("rope_scaling":8)"), Says("\"rope_scaling\" has the wrong type"));
  CHECK_THAT(error_with(R"("hidden_size":64)"), Says("the key \"hidden_size\" twice"));
}

TEST_CASE("what would silently change the result is refused") {
  CHECK_THAT(error_with(R"("attention_bias":true)"), Says("\"attention_bias\" is true"));
  CHECK_THAT(error_with(R"("mlp_bias":true)"), Says("\"mlp_bias\" is true"));
  CHECK_THAT(error_with(R"("hidden_act":"gelu")"), Says("\"hidden_act\" is \"gelu\""));
  CHECK_THAT(error_with(R"("quantization_config":{"quant_method":"awq"})"), Says("\"quantization_config\""));
  CHECK_THAT(error_with(R"("partial_rotary_factor":0.5)"), Says("\"partial_rotary_factor\""));
  CHECK_THAT(error_of([] { read_hf_config(R"({"model_type":"bert"})"); }), Says("\"bert\"", "llama, mistral, qwen2, qwen3"));
}

TEST_CASE("generation_config.json adds its end tokens") {
  CHECK(read_hf_eos(R"({"eos_token_id":[5,6]})", 10) == std::vector<TokenId>{5, 6});
  CHECK(read_hf_eos(R"({"eos_token_id":7})", 10) == std::vector<TokenId>{7});
  CHECK(read_hf_eos("{}", 10).empty());
  CHECK_THAT(error_of([] { read_hf_eos(R"({"eos_token_id":10})", 10); }), Says("\"eos_token_id\" is 10"));
}
