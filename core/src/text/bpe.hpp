// SPDX-License-Identifier: Apache-2.0
//
// BpeMerger: byte-pair encoding of one word. The word's symbols form a linked list; a heap holds the merges that were
// possible when their pair came to be neighbours, best rank first and leftmost among equals. O(n log n).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "vocabulary.hpp"

namespace lmkit {

class BpeMerger {
 public:
  // missing_byte stands for a byte that has no token; no_token: such bytes are left out.
  BpeMerger(const Vocabulary& vocabulary, TokenId missing_byte) : vocabulary_(vocabulary), missing_byte_(missing_byte) {}

  void append(std::string_view word, std::vector<TokenId>& out);

 private:
  struct Symbol {
    TokenId token;  // no_token once it was merged into its left neighbour
    std::int32_t left, right;  // neighbours; -1 at the ends
  };
  using Candidate = std::uint64_t;  // rank << 32 | index of the left symbol

  Candidate candidate(std::int32_t left) const noexcept;
  void push(std::int32_t left);

  const Vocabulary& vocabulary_;
  TokenId missing_byte_;
  std::vector<Symbol> symbols_;   // kept from word to word, to save allocations
  std::vector<Candidate> heap_;
};

}  // namespace lmkit
