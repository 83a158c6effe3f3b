// SPDX-License-Identifier: Apache-2.0
//
// Dummy models: the tensors of the config and no others, values of the stated size, and a tokenizer with or without a file.
#include <catch.hpp>
#include <model_errors.hpp>
#include <temporary_directory.hpp>

#include <lmkit/kernels/embedding.hpp>
#include <lmkit/model/dummy_model.hpp>
#include <lmkit/model/tensor_shapes.hpp>
#include <lmkit/text/tokenizer.hpp>

#include <cmath>
#include <set>
#include <vector>

using namespace lmkit;
using namespace lmkit_test;

namespace {

// Qwen3 and Qwen2 have all kinds of tensors between them.
std::string config_json(const std::string& type, int vocabulary = 300) {
  return R"({"model_type":")" + type + R"(","hidden_size":256,"intermediate_size":640,"num_attention_heads":4,"num_key_value_heads":2,)"
         R"("head_dim":96,"num_hidden_layers":2,"eos_token_id":7,"vocab_size":)" + std::to_string(vocabulary) + "}";
}

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments_of(const MatrixView& matrix) {
  std::vector<float> row(static_cast<std::size_t>(matrix.cols));
  double sum = 0, squares = 0;
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    kernels::expand_row(matrix, r, row.data());
    for (const float value : row) sum += value, squares += double{value} * value;
  }
  const double count = static_cast<double>(matrix.rows * matrix.cols), mean = sum / count;
  return {mean, std::sqrt(squares / count - mean * mean)};
}

}  // namespace

TEST_CASE("a dummy has its config's tensors, with values that keep activations near 1") {
  const TemporaryDirectory directory;
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    directory.write("config.json", config_json(type));
    const auto model = open_dummy_model(directory.path().string());
    CHECK(model->config().architecture == type);
    std::set<const std::byte*> places;
    for (const auto& [name, shape] : tensor_shapes(model->config())) {
      CAPTURE(type, name);
      const MatrixView view = model->matrix(name, shape.rows, shape.cols);
      const Moments found = moments_of(view);
      if (name.ends_with("norm.weight")) {
        CHECK(view.format == WeightFormat::f32);
        CHECK(std::fabs(found.mean - 1) < 0.1);
      } else if (name.ends_with(".bias")) {
        CHECK(view.format == WeightFormat::f32);
        CHECK(std::fabs(found.mean) < 0.1);
        CHECK(found.deviation > 0.05);
      } else {
        CHECK(view.format == WeightFormat::bf16);
        CHECK(std::fabs(found.mean) < 0.005);
        CHECK(std::fabs(found.deviation * 16 - 1) < 0.05);
        CHECK(places.insert(view.data).second);
      }
    }
    CHECK(!model->find("rope_freqs.weight"));
    CHECK(model->find("blk.0.attn_q.bias").has_value() == (std::string(type) == "qwen2"));
    CHECK(model->find("blk.1.attn_k_norm.weight").has_value() == (std::string(type) == "qwen3"));
  }
}

TEST_CASE("the same config gives the same weights") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("shape.json", config_json("llama"));
  const auto one = open_dummy_model(path), two = open_dummy_model(path);
  const MatrixView a = *one->find("blk.1.ffn_up.weight"), b = *two->find("blk.1.ffn_up.weight");
  CHECK(std::equal(a.data, a.data + a.rows * a.row_bytes, b.data));
}

TEST_CASE("a dummy without a tokenizer.json reads and writes bytes") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("config.json", config_json("qwen3"));
  const auto model = open_dummy_model(path);
  const Tokenizer tokenizer(model->tokenizer());
  const std::string text = "Größe: \x01 日本\n";
  const auto ids = tokenizer.encode(text, {.add_special = true, .parse_special = true});
  CHECK(ids.size() == text.size());
  CHECK(tokenizer.decode(ids) == text);
  CHECK(tokenizer.size() == 300);
  CHECK(tokenizer.end_of_turn() == std::vector<TokenId>{256});
}

TEST_CASE("a directory's own tokenizer is used, and a broken one is an error") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("config.json", config_json("llama"));
  directory.write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)"
                                    R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})");
  const auto model = open_dummy_model(directory.path().string());
  CHECK(model->tokenizer().tokens.at(2) == "ab");
  CHECK(model->tokenizer().tokens.size() == 300);
  CHECK(model->tokenizer().end_of_turn == std::vector<TokenId>{7});
  CHECK(open_dummy_model(path)->tokenizer().tokens.at(2) != "ab");  // the config alone
  directory.write("tokenizer.json", R"({"model":{"type":"BPE","byte_fallback":true,"vocab":{},"merges":[]},"pre_tokenizer":{"type":"ByteLevel"}})");
  CHECK_THAT(error_of([&] { open_dummy_model(directory.path().string()); }), Says("byte_fallback", "byte-level BPE"));
}

TEST_CASE("what is no model's config is refused with its path") {
  const TemporaryDirectory directory;
  CHECK_THAT(error_of([&] { open_dummy_model(directory.path().string()); }), Says(directory.path().string() + ": config.json: cannot read it"));
  CHECK_THAT(error_of([&] { open_dummy_model(directory.write("x.json", config_json("gpt2"))); }), Says("x.json: \"model_type\" is \"gpt2\"", "llama, mistral"));
  CHECK_THAT(error_of([&] { open_dummy_model(directory.write("x.json", config_json("llama", 256))); }), Says("a vocabulary of 256", "at least 257"));
}
