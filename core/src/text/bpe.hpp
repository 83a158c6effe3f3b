// SPDX-License-Identifier: Apache-2.0
//
// BpeMerger: byte-pair encoding of one word. The best rank is merged next and, within a rank, the word from left to
// right. In a short word it is looked for, in a long one a queue knows: O(n log n), and memory is read in order however long the word is. A symbol takes one cell for each byte it
// covers: the first holds its token; its second and its last, where it has them, how many there are. So its neighbours are
// found without links. Cells are few bytes because the memory of a long word is new memory, which costs as much as reading it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "merge_queue.hpp"
#include "vocabulary.hpp"

namespace lmkit {

class BpeMerger {
 public:
  // missing_byte stands for a byte that has no token; no_token: such bytes are left out.
  BpeMerger(const Vocabulary& vocabulary, TokenId missing_byte)
      : vocabulary_(vocabulary), missing_byte_(missing_byte) {}

  void append(std::string_view word, std::vector<TokenId>& out);

 private:
  using Index = std::int32_t;  // of a cell

  struct Cell {
    std::int32_t token;                    // of the symbol that begins here; inside one: -cells of the symbol
    std::uint32_t rank = PairTable::none;  // of the merge with the right neighbour; none inside a symbol
  };

  Index size() const noexcept { return static_cast<Index>(cells_.size()); }
  Index right_of(Index at) const noexcept { return at + 1 < size() && cells_[at + 1].token < 0 ? at - cells_[at + 1].token : at + 1; }
  Index left_of(Index at) const noexcept { return cells_[at - 1].token < 0 ? at + cells_[at - 1].token : at - 1; }
  void merge_short();
  void merge_long();
  void find_rank(Index at);
  void merge_with_right(Index at);  // and finds the ranks this changes: its own and its left neighbour's
  void await_merge(Index at) {
    if (cells_[at].rank != PairTable::none) queue_->push(cells_[at].rank, at);
  }

  const Vocabulary& vocabulary_;
  TokenId missing_byte_;
  // Kept from word to word, to save allocations.
  std::optional<MergeQueue> queue_;
  std::vector<Cell> cells_;
  std::vector<Index> batch_;  // the rank at hand, from left to right
};

}  // namespace lmkit
