// SPDX-License-Identifier: Apache-2.0
//
// A whole Llama model of a few kilobytes, with random weights: as a GGUF file in memory, or written to disk.
#pragma once

#include "gguf_writer.hpp"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace lmkit_test {

struct TinyShape {
  int layers = 2, hidden = 64, ffn = 96, query_heads = 4, kv_heads = 2, context = 256;
  std::uint32_t format = ggml_f32;  // of the matrices
  bool tied = true;
};

// The 256 bytes in GPT-2's spelling, in its order of byte values.
inline std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  int beyond = 256;  // bytes that do not print are spelled by the code points from here
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const int point = prints ? byte : beyond++;
    if (point < 0x80) tokens.push_back(std::string(1, static_cast<char>(point)));
    else tokens.push_back({static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))});
  }
  return tokens;
}

struct TinyTokens {
  std::vector<std::string> tokens = byte_tokens(), merges = {"h e", "l l", "he ll", "hell o"};
  std::vector<std::int32_t> kinds;
  TinyTokens() {
    for (const char* merged : {"he", "ll", "hell", "hello"}) tokens.push_back(merged);
    kinds.assign(tokens.size(), 1);
    for (const char* control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]"}) tokens.push_back(control);
    kinds.resize(tokens.size(), 3);
  }
};

// Bytes of a matrix of small random values in a format.
inline Bytes random_matrix(std::mt19937& random, std::uint32_t format, std::uint64_t rows, std::uint64_t cols) {
  Bytes out;
  const auto small_half = [&] { return static_cast<std::uint16_t>(0x2000 + random() % 0x800); };  // 0.008 to 0.031
  const auto values = rows * cols;
  if (format == ggml_f32)
    for (std::uint64_t i = 0; i < values; ++i) append(out, static_cast<float>(static_cast<int>(random() % 2001) - 1000) * 1e-4f);
  else if (format == ggml_f16)
    for (std::uint64_t i = 0; i < values; ++i) append(out, static_cast<std::uint16_t>(small_half() | (random() & 1) << 15));
  else if (format == ggml_bf16)
    for (std::uint64_t i = 0; i < values; ++i) append(out, static_cast<std::uint16_t>((0x3c00 + random() % 0x80) | (random() & 1) << 15));
  else
    for (std::uint64_t block = 0; block < values / 32; ++block) {
      append(out, small_half());
      if (format == ggml_q4_1) append(out, static_cast<std::uint16_t>(small_half() | 0x8000));
      for (int i = 0; i < (format == ggml_q8_0 ? 32 : 16); ++i) append(out, static_cast<std::uint8_t>(random() % (format == ggml_q8_0 ? 16 : 256)));
    }
  return out;
}

inline GgufWriter tiny_gguf(const TinyShape& shape = {}, std::uint32_t seed = 1) {
  std::mt19937 random(seed);
  const TinyTokens vocabulary;
  GgufWriter out;
  const auto n = [](int value) { return static_cast<std::uint32_t>(value); };
  out.text("general.architecture", "llama").text("general.name", "tiny");
  out.u32("llama.block_count", n(shape.layers)).u32("llama.embedding_length", n(shape.hidden));
  out.u32("llama.feed_forward_length", n(shape.ffn)).u32("llama.context_length", n(shape.context));
  out.u32("llama.attention.head_count", n(shape.query_heads)).u32("llama.attention.head_count_kv", n(shape.kv_heads));
  out.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).f32("llama.rope.freq_base", 10000.0f);
  out.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
  out.texts("tokenizer.ggml.tokens", vocabulary.tokens).i32s("tokenizer.ggml.token_type", vocabulary.kinds);
  out.texts("tokenizer.ggml.merges", vocabulary.merges);
  out.u32("tokenizer.ggml.bos_token_id", 261).u32("tokenizer.ggml.eos_token_id", 262).u32("tokenizer.ggml.padding_token_id", 263);
  out.boolean("tokenizer.ggml.add_bos_token", false);

  const auto matrix = [&](const std::string& name, int rows, int cols) {
    const auto r = static_cast<std::uint64_t>(rows), c = static_cast<std::uint64_t>(cols);
    out.tensor(name, {c, r}, shape.format, random_matrix(random, shape.format, r, c));
  };
  const auto norm = [&](const std::string& name) {
    Bytes ones;
    for (int i = 0; i < shape.hidden; ++i) append(ones, 1.0f);
    out.tensor(name, {static_cast<std::uint64_t>(shape.hidden)}, ggml_f32, ones);
  };
  const int head_dim = shape.hidden / shape.query_heads, rows = static_cast<int>(vocabulary.tokens.size());
  matrix("token_embd.weight", rows, shape.hidden);
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    norm(prefix + "attn_norm.weight");
    matrix(prefix + "attn_q.weight", shape.hidden, shape.hidden);
    matrix(prefix + "attn_k.weight", shape.kv_heads * head_dim, shape.hidden);
    matrix(prefix + "attn_v.weight", shape.kv_heads * head_dim, shape.hidden);
    matrix(prefix + "attn_output.weight", shape.hidden, shape.hidden);
    norm(prefix + "ffn_norm.weight");
    matrix(prefix + "ffn_gate.weight", shape.ffn, shape.hidden);
    matrix(prefix + "ffn_up.weight", shape.ffn, shape.hidden);
    matrix(prefix + "ffn_down.weight", shape.hidden, shape.ffn);
  }
  norm("output_norm.weight");
  if (!shape.tied) matrix("output.weight", rows, shape.hidden);
  return out;
}

}  // namespace lmkit_test
