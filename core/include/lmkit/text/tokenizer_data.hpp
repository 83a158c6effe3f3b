// SPDX-License-Identifier: Apache-2.0
//
// TokenizerData: what a model file says about its tokenizer. Written by model/ (GGUF) and tokenizer_json (Hugging Face),
// read by Tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

using TokenId = std::int32_t;

enum class TokenKind : std::uint8_t { normal, unknown, control, user_defined, unused, byte };

// A special token that swallows the white space beside it.
struct StripRule {
  TokenId token = 0;
  bool left = false, right = false;
};

// Control tokens that end an answer in the chat formats people use; files often name only one of them as eos.
inline constexpr std::string_view turn_enders[] = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|return|>", "<|call|>", "<|flush|>",
    "<|calls|>", "<end_of_turn>", "<end_of_utterance>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"};

struct TokenizerData {
  std::string model;          // "bpe"
  std::string pre_tokenizer;  // GGUF's name of it: "smollm", "gpt-2", "llama-bpe", "qwen2", "tekken"
  std::vector<std::string> tokens;  // byte-level spelling, as in the file
  std::vector<TokenKind> kinds;     // one per token
  std::vector<std::string> merges;  // "left right", best first
  std::optional<TokenId> bos, eos;
  std::vector<TokenId> end_of_turn;  // every token that ends an answer, eos included
  bool add_bos = false;

  // What only a tokenizer.json says; a GGUF's pre_tokenizer implies it.
  std::vector<std::string> split_patterns;  // regular expressions applied one after the other; empty: pre_tokenizer's own
  bool ignore_merges = false;               // a word that is a token is that token, whatever the merges say
  bool nfc = false;                         // text is brought to Unicode normal form C first
  std::optional<TokenId> missing_byte;      // stands for a byte without a token; none: such bytes vanish
  std::vector<StripRule> strips;

  std::string chat_template;  // Jinja; empty if the file has none
};

}  // namespace lmkit
