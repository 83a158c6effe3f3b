// SPDX-License-Identifier: Apache-2.0
//
// BpeMerger: byte-pair encoding of one word. Its symbols form a linked list. The symbols that can merge with their
// right neighbour wait in one list per rank; a heap holds the ranks. So the best rank is taken next and, within a rank,
// the word is walked from left to right: O(n log n), and memory is read in order however long the word is.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "vocabulary.hpp"

namespace lmkit {

class BpeMerger {
 public:
  // missing_byte stands for a byte that has no token; no_token: such bytes are left out.
  BpeMerger(const Vocabulary& vocabulary, TokenId missing_byte)
      : vocabulary_(vocabulary), missing_byte_(missing_byte), first_(vocabulary.merges(), none) {}

  void append(std::string_view word, std::vector<TokenId>& out);

 private:
  using Index = std::int32_t;  // of a symbol
  static constexpr Index none = -1, not_waiting = -2;

  struct Symbol {
    TokenId token;
    Index left, right;                      // neighbours in the word
    std::uint32_t rank = PairTable::none;   // of the merge with the right neighbour
    Index previous = not_waiting, next = none;  // in the list of that rank
  };

  void await_merge(Index symbol);  // puts the symbol into the list where it belongs now
  void leave_list(Index symbol);
  void take_batch(std::uint32_t rank);
  void merge_with_right(Index symbol);

  const Vocabulary& vocabulary_;
  TokenId missing_byte_;
  std::vector<Index> first_;  // per rank: its list
  // Kept from word to word, to save allocations.
  std::vector<Symbol> symbols_;
  std::vector<std::uint32_t> ranks_;  // min-heap of the lists to look at
  std::vector<Index> batch_;          // the rank at hand, from left to right
};

}  // namespace lmkit
