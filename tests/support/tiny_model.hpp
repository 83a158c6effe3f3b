// SPDX-License-Identifier: Apache-2.0
//
// TinyModel: a Llama with random weights in memory, so that an engine can be tested in milliseconds. Every byte is a
// token; the rest of the vocabulary are control tokens, of which the last ends a turn.
#pragma once

#include <lmkit/base/half.hpp>
#include <lmkit/model/model_file.hpp>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace lmkit::test {

struct TinyShape {
  int layers = 2;
  int hidden = 64;
  int ffn = 160;
  int query_heads = 6;
  int kv_heads = 2;
  int head_dim = 32;
  int vocabulary = 300;
  int max_context = 512;
  int window = 0;
  WeightFormat format = WeightFormat::f32;  // f32 or q8_0, of the matrices
};

class TinyModel final : public ModelFile {
 public:
  explicit TinyModel(std::uint64_t seed, const TinyShape& shape = {}) : random_(seed), shape_(shape) {
    config_ = {.architecture = "llama",
               .name = "tiny",
               .layers = shape.layers,
               .hidden = shape.hidden,
               .ffn = shape.ffn,
               .query_heads = shape.query_heads,
               .kv_heads = shape.kv_heads,
               .head_dim = shape.head_dim,
               .vocabulary = shape.vocabulary,
               .max_context = shape.max_context,
               .window = shape.window,
               .tied_embeddings = true,
               .rope = {.pairs = LMKIT_ROPE_ADJACENT, .rotary_dim = shape.head_dim}};
    const int queries = shape.query_heads * shape.head_dim, keys = shape.kv_heads * shape.head_dim;
    matrix("token_embd", shape.vocabulary, shape.hidden, shape.format);
    for (int i = 0; i < shape.layers; ++i) {
      const std::string layer = "blk." + std::to_string(i) + ".";
      vector(layer + "attn_norm", shape.hidden);
      matrix(layer + "attn_q", queries, shape.hidden, shape.format);
      matrix(layer + "attn_k", keys, shape.hidden, shape.format);
      matrix(layer + "attn_v", keys, shape.hidden, shape.format);
      matrix(layer + "attn_output", shape.hidden, queries, shape.format);
      vector(layer + "ffn_norm", shape.hidden);
      matrix(layer + "ffn_gate", shape.ffn, shape.hidden, shape.format);
      matrix(layer + "ffn_up", shape.ffn, shape.hidden, shape.format);
      matrix(layer + "ffn_down", shape.hidden, shape.ffn, shape.format);
    }
    vector("output_norm", shape.hidden);
    write_tokenizer();
  }

  const ModelConfig& config() const noexcept override { return config_; }
  const TokenizerData& tokenizer() const noexcept override { return tokenizer_; }
  std::optional<MatrixView> find(std::string_view name) const noexcept override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? std::nullopt : std::optional(found->second.view);
  }

  TokenId end_of_turn() const noexcept { return shape_.vocabulary - 1; }

 private:
  struct Tensor {
    std::vector<std::byte> bytes;
    MatrixView view;
  };

  void matrix(const std::string& name, int rows, int cols, WeightFormat format) {
    std::normal_distribution<float> normal(0, 3 / std::sqrt(static_cast<float>(cols)));
    std::vector<float> values(static_cast<std::size_t>(rows) * cols);
    for (float& value : values) value = normal(random_);
    store(name, rows, cols, format, values);
  }

  void vector(const std::string& name, int size) {
    std::uniform_real_distribution<float> around_one(0.5f, 1.5f);
    std::vector<float> values(size);
    for (float& value : values) value = around_one(random_);
    store(name, 1, size, WeightFormat::f32, values);
  }

  void store(const std::string& name, int rows, int cols, WeightFormat format, const std::vector<float>& values) {
    Tensor& tensor = tensors_[name + ".weight"];
    const std::int64_t row_bytes = MatrixView::packed_row_bytes(format, cols);
    tensor.bytes.resize(static_cast<std::size_t>(rows * row_bytes));
    if (format == WeightFormat::f32) std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
    else quantise(values, tensor.bytes.data());
    tensor.view = {format, rows, cols, row_bytes, tensor.bytes.data()};
  }

  // Q8_0: half scale, 32 int8
  static void quantise(const std::vector<float>& values, std::byte* out) {
    for (std::size_t block = 0; block < values.size(); block += 32, out += 34) {
      float largest = 0;
      for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[block + i]));
      const Half scale = to_half(largest / 127);
      std::memcpy(out, &scale, 2);
      for (int i = 0; i < 32; ++i) {
        const auto q = static_cast<std::int8_t>(std::lround(values[block + i] / std::max(to_float(scale), 1e-8f)));
        std::memcpy(out + 2 + i, &q, 1);
      }
    }
  }

  // GPT-2's spelling of bytes: printable Latin-1 as it is, the others from U+0100 on.
  void write_tokenizer() {
    tokenizer_.model = "bpe";
    tokenizer_.pre_tokenizer = "gpt-2";
    int shifted = 0;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const int code = printable ? byte : 256 + shifted++;
      std::string text;
      if (code < 128) text += static_cast<char>(code);
      else text = {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
      tokenizer_.tokens.push_back(text);
      tokenizer_.kinds.push_back(TokenKind::normal);
    }
    for (int i = 256; i < shape_.vocabulary; ++i) {
      tokenizer_.tokens.push_back("<|" + std::to_string(i) + "|>");
      tokenizer_.kinds.push_back(TokenKind::control);
    }
    tokenizer_.eos = end_of_turn();
    tokenizer_.end_of_turn = {end_of_turn()};
  }

  std::mt19937_64 random_;
  TinyShape shape_;
  ModelConfig config_;
  TokenizerData tokenizer_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace lmkit::test
