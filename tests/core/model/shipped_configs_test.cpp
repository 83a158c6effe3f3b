// SPDX-License-Identifier: Apache-2.0
//
// The config.json files in tests/configs are read to the published shapes and parameter counts, and open as dummy models.
#include <catch.hpp>

#include <lmkit/model/dummy_model.hpp>
#include <lmkit/model/hf_model.hpp>
#include <lmkit/model/tensor_shapes.hpp>

#include <string>

using namespace lmkit;

namespace {

struct Published {
  const char* name;
  const char* architecture;
  std::int64_t parameters;
  int layers, hidden, ffn, query_heads, kv_heads, head_dim, vocabulary, context;
  float rope_base, rms_eps;
};

constexpr Published published[] = {
    {"Llama-2-7B", "llama", 6'738'415'616, 32, 4096, 11008, 32, 32, 128, 32000, 4096, 1e4f, 1e-5f},
    {"Llama-3.1-8B", "llama", 8'030'261'248, 32, 4096, 14336, 32, 8, 128, 128256, 131072, 5e5f, 1e-5f},
    {"Llama-3.1-70B", "llama", 70'553'706'496, 80, 8192, 28672, 64, 8, 128, 128256, 131072, 5e5f, 1e-5f},
    {"Mistral-7B-v0.3", "mistral", 7'248'023'552, 32, 4096, 14336, 32, 8, 128, 32768, 32768, 1e6f, 1e-5f},
    {"Qwen2.5-7B", "qwen2", 7'615'616'512, 28, 3584, 18944, 28, 4, 128, 152064, 131072, 1e6f, 1e-6f},
    {"Qwen3-8B", "qwen3", 8'190'735'360, 36, 4096, 12288, 32, 8, 128, 151936, 40960, 1e6f, 1e-6f},
};

std::string directory_of(const Published& model) { return std::string(LMKIT_TEST_DATA "/../../../configs/") + model.name; }

}  // namespace

TEST_CASE("shipped configs have the published shapes and numbers of parameters") {
  for (const Published& model : published) {
    CAPTURE(model.name);
    const ModelConfig c = read_hf_configs(directory_of(model) + "/config.json").model;
    CHECK(c.architecture == model.architecture);
    CHECK(c.layers == model.layers);
    CHECK(c.hidden == model.hidden);
    CHECK(c.ffn == model.ffn);
    CHECK(c.query_heads == model.query_heads);
    CHECK(c.kv_heads == model.kv_heads);
    CHECK(c.head_dim == model.head_dim);
    CHECK(c.vocabulary == model.vocabulary);
    CHECK(c.max_context == model.context);
    CHECK(c.rope.base == model.rope_base);
    CHECK(c.rms_eps == model.rms_eps);
    CHECK(c.window == 0);
    CHECK(!c.tied_embeddings);
    CHECK(c.qkv_bias == (c.architecture == "qwen2"));
    CHECK(c.head_norms == (c.architecture == "qwen3"));
    CHECK((c.rope.factor == 8.0f) == (std::string(model.name).find("3.1") != std::string::npos));
    CHECK(parameter_count(tensor_shapes(c)) == model.parameters);
  }
}

TEST_CASE("a dummy of 70 billion parameters opens in the memory of one buffer") {
  const Published& model = published[2];
  const auto dummy = open_dummy_model(directory_of(model));
  CHECK(dummy->config().name == model.name);
  for (const auto& [name, shape] : tensor_shapes(dummy->config())) {
    const MatrixView view = dummy->matrix(name, shape.rows, shape.cols);
    const auto bytes = (view.rows - 1) * view.row_bytes + MatrixView::packed_row_bytes(view.format, view.cols);
    CHECK(bytes <= std::int64_t{64} << 20);
  }
}
