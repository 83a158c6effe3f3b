// SPDX-License-Identifier: Apache-2.0
//
// BpeMerger: byte-pair encoding of one word. The best rank is merged next and, within a rank, the word from left to
// right: O(n log n), and memory is read in order however long the word is. A symbol takes one cell for each byte it
// covers, and its first and its last cell know how many these are: so its neighbours are found without links.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "merge_queue.hpp"
#include "vocabulary.hpp"

namespace lmkit {

class BpeMerger {
 public:
  // missing_byte stands for a byte that has no token; no_token: such bytes are left out.
  BpeMerger(const Vocabulary& vocabulary, TokenId missing_byte)
      : vocabulary_(vocabulary), missing_byte_(missing_byte), queue_(vocabulary.merges()) {}

  void append(std::string_view word, std::vector<TokenId>& out);

 private:
  using Index = std::int32_t;  // of a cell

  struct Cell {
    TokenId token;
    Index cells = 1;                       // of this symbol
    std::uint32_t rank = PairTable::none;  // of the merge with the right neighbour; none inside a symbol
  };

  Index right_of(Index at) const noexcept { return at + cells_[at].cells; }
  void await_merge(Index at);  // queues the symbol with the rank it has now
  void merge_with_right(Index at);

  const Vocabulary& vocabulary_;
  TokenId missing_byte_;
  // Kept from word to word, to save allocations.
  MergeQueue queue_;
  std::vector<Cell> cells_;
  std::vector<Index> batch_;  // the rank at hand, from left to right
};

}  // namespace lmkit
