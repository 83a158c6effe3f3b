// SPDX-License-Identifier: Apache-2.0
//
// TokenizerData: what a model file says about its tokenizer. Written by model/, read by Tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lmkit {

using TokenId = std::int32_t;

enum class TokenKind : std::uint8_t { normal, unknown, control, user_defined, unused, byte };

struct TokenizerData {
  std::string model;          // "bpe"
  std::string pre_tokenizer;  // GGUF's name of it: "smollm", "gpt-2", "llama-bpe", "qwen2"
  std::vector<std::string> tokens;  // byte-level spelling, as in the file
  std::vector<TokenKind> kinds;     // one per token
  std::vector<std::string> merges;  // "left right", best first
  std::optional<TokenId> bos, eos, unknown, padding;
  std::vector<TokenId> end_of_turn;  // every token that ends an answer, eos included
  bool add_bos = false;
  std::string chat_template;  // Jinja; empty if the file has none
};

}  // namespace lmkit
