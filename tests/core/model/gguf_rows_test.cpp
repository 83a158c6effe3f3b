// SPDX-License-Identifier: Apache-2.0
//
// SmolLM2-135M-Instruct as it is opened here against what the Python package gguf reads from the same file
// (tests/oracle/gguf_rows.py). Skipped where the model is not: LMKIT_TEST_MODEL names it, or it lies in the cache.
#include <catch.hpp>

#include <lmkit/base/error.hpp>
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/model/model_file.hpp>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

using namespace lmkit;

namespace {

std::unique_ptr<ModelFile> smollm2() {
  const char* path = std::getenv("LMKIT_TEST_MODEL");
  try {
    return open_model(resolve_model(path ? path : ""));
  } catch (const Error& error) {
    WARN("skipped: " << error.what());
    return nullptr;
  }
}

// CRC-32 as zlib has it.
std::uint32_t crc32(const std::vector<float>& values) {
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < values.size() * sizeof(float); ++i) {
    crc ^= reinterpret_cast<const unsigned char*>(values.data())[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

}  // namespace

TEST_CASE("every tensor of SmolLM2 expands to the values that Python's gguf gives") {
  const auto model = smollm2();
  if (!model) return;
  std::ifstream fixture(LMKIT_TEST_DATA "/smollm2_rows.txt");
  std::string name;
  std::int64_t row;
  std::uint32_t crc;
  float first, last;
  int tensors = 0;
  while (fixture >> name >> row >> std::hex >> crc >> std::dec >> first >> last) {
    INFO(name << " row " << row);
    const auto view = model->find(name);
    REQUIRE(view);
    REQUIRE(row < view->rows);
    std::vector<float> values(view->cols);
    kernels::expand_row(*view, row, values.data());
    CHECK(values.front() == first);
    CHECK(values.back() == last);
    CHECK(crc32(values) == crc);
    ++tensors;
  }
  CHECK(tensors == 272);
}

TEST_CASE("SmolLM2's config and tokenizer are the ones its card states") {
  const auto model = smollm2();
  if (!model) return;
  const ModelConfig& config = model->config();
  CHECK(config.architecture == "llama");
  CHECK(config.layers == 30);
  CHECK(config.hidden == 576);
  CHECK(config.ffn == 1536);
  CHECK(config.query_heads == 9);
  CHECK(config.kv_heads == 3);
  CHECK(config.head_dim == 64);
  CHECK(config.vocabulary == 49152);
  CHECK(config.max_context == 8192);
  CHECK(config.rms_eps == 1e-5f);
  CHECK(config.tied_embeddings);
  CHECK(config.rope.pairs == LMKIT_ROPE_ADJACENT);
  CHECK(config.rope.rotary_dim == 64);
  CHECK(config.rope.base == 100000.0f);

  const TokenizerData& tokenizer = model->tokenizer();
  CHECK(tokenizer.pre_tokenizer == "smollm");
  CHECK(tokenizer.tokens.size() == 49152);
  CHECK(tokenizer.merges.size() == 48900);
  CHECK(tokenizer.tokens[2] == "<|im_end|>");
  CHECK(tokenizer.bos == 1);
  CHECK(tokenizer.eos == 2);
  CHECK(!tokenizer.add_bos);
  CHECK(tokenizer.end_of_turn == std::vector<TokenId>{0, 2});
  CHECK(tokenizer.chat_template.starts_with("{% for message in messages %}"));
}
