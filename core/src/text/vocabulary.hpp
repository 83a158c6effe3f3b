// SPDX-License-Identifier: Apache-2.0
//
// Vocabulary: tokens <-> bytes, the merges, and the special tokens: what BPE looks up. Flat tables, built once.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lmkit {

inline constexpr TokenId no_token = -1;

// (left, right) -> rank of their merge; open addressing.
class PairTable {
 public:
  static constexpr std::uint32_t none = ~0u;

  void reserve(std::size_t pairs);
  void insert(TokenId left, TokenId right, std::uint32_t rank) noexcept;  // the first rank of a pair stays
  std::uint32_t find(TokenId left, TokenId right) const noexcept;

 private:
  struct Slot {
    std::uint64_t key;
    std::uint32_t rank = none;
  };
  Slot& slot(std::uint64_t key) noexcept;

  std::vector<Slot> slots_{2};
};

// Finds special tokens in text: a trie over their spellings.
class SpecialTokens {
 public:
  void add(std::string_view spelling, TokenId token);

  // The longest token spelled at text[at..] for which allowed(token, end) holds; {no_token, at} if none.
  template <class Allowed>
  std::pair<TokenId, std::size_t> longest(std::string_view text, std::size_t at, Allowed&& allowed) const {
    std::pair<TokenId, std::size_t> best{no_token, at};
    std::uint32_t node = 0;
    for (std::size_t i = at; i < text.size(); ++i) {
      if (i == at && !starts_[static_cast<std::uint8_t>(text[i])]) break;
      const auto next = children_.find(key(node, text[i]));
      if (next == children_.end()) break;
      node = next->second;
      if (tokens_[node] != no_token && allowed(tokens_[node], i + 1)) best = {tokens_[node], i + 1};
    }
    return best;
  }

 private:
  static std::uint64_t key(std::uint32_t node, char c) noexcept { return std::uint64_t{node} << 8 | static_cast<std::uint8_t>(c); }

  std::unordered_map<std::uint64_t, std::uint32_t> children_;
  std::vector<TokenId> tokens_{no_token};  // per node
  std::array<bool, 256> starts_{};
};

class Vocabulary {
 public:
  explicit Vocabulary(const TokenizerData& data);  // throws Error(model)

  int size() const noexcept { return static_cast<int>(kinds_.size()); }
  bool contains(TokenId token) const noexcept { return token >= 0 && token < size(); }
  TokenKind kind(TokenId token) const noexcept { return kinds_[static_cast<std::size_t>(token)]; }
  bool is_special(TokenId token) const noexcept { return kind(token) != TokenKind::normal && kind(token) != TokenKind::byte; }
  std::string_view piece(TokenId token) const noexcept {
    const auto i = static_cast<std::size_t>(token);
    return std::string_view(bytes_).substr(starts_[i], starts_[i + 1] - starts_[i]);
  }

  TokenId find(std::string_view bytes) const noexcept;  // among the tokens that are not special
  TokenId of_byte(std::uint8_t byte) const noexcept { return of_byte_[byte]; }
  std::uint32_t rank(TokenId left, TokenId right) const noexcept { return ranks_.find(left, right); }
  TokenId merged(std::uint32_t rank) const noexcept { return merged_[rank]; }
  std::size_t merges() const noexcept { return merged_.size(); }
  const SpecialTokens& specials() const noexcept { return specials_; }

 private:
  void add_pieces(const TokenizerData& data);
  void index_pieces();
  void add_merges(const std::vector<std::string>& merges);

  std::string bytes_;                  // all pieces side by side
  std::vector<std::uint32_t> starts_;  // (size + 1) into bytes_
  std::vector<TokenKind> kinds_;
  std::vector<TokenId> index_;  // piece -> token; open addressing
  std::array<TokenId, 256> of_byte_;
  PairTable ranks_;
  std::vector<TokenId> merged_;  // rank -> token
  SpecialTokens specials_;
};

}  // namespace lmkit
