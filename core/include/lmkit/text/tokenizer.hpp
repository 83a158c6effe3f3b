// SPDX-License-Identifier: Apache-2.0
//
// Tokenizer: text <-> token ids by byte-level BPE, with the ids that Hugging Face's `tokenizers` gives.
//
// The way of a text: special tokens are cut out -> (NFC) -> the pre-tokeniser's regular expressions cut it into words
// -> each word's bytes are merged pair by pair, best rank first. Time is O(n log n) in the longest word and linear in
// the rest. Input that is not UTF-8 is read as replace_invalid_utf8 would write it.
//
// Immutable after construction. [any-thread]
#pragma once

#include <lmkit/text/tokenizer_data.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

struct TextRange {
  std::size_t begin = 0, end = 0;  // bytes, end exclusive
  bool operator==(const TextRange&) const = default;
};

struct EncodeOptions {
  bool add_special = false;    // put the model's begin-of-sequence token first, if it wants one
  bool parse_special = false;  // control tokens spelled in the text become those tokens (user-defined ones always do)
  // With parse_special: where a control token's spelling stays text, because a stranger wrote it. Sorted, disjoint;
  // offsets into the text, which must be valid UTF-8 if there are any.
  std::span<const TextRange> foreign = {};
};

class Tokenizer {
 public:
  // Throws Error(model) if the model or pre-tokeniser is not one of those supported, or the data contradicts itself.
  explicit Tokenizer(const TokenizerData& data);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Throws Error(runtime) if a regular expression gives up on the text, or the text is longer than 1 GiB.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The tokens' bytes side by side, control tokens spelled out; may be cut inside a character.
  std::string decode(std::span<const TokenId> tokens) const;

  int size() const noexcept;
  // The bytes a token stands for (a control token's are its spelling); empty if there is no such token.
  std::string_view piece(TokenId token) const noexcept;
  // The token that stands for exactly these bytes.
  std::optional<TokenId> find(std::string_view text) const noexcept;

  bool is_control(TokenId token) const noexcept;  // never part of the answer's text
  bool is_end_of_turn(TokenId token) const noexcept;
  const std::vector<TokenId>& end_of_turn() const noexcept;
  std::optional<TokenId> bos() const noexcept;
  std::optional<TokenId> eos() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace lmkit
