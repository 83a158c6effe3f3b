// SPDX-License-Identifier: Apache-2.0
#include "bpe.hpp"

#include <algorithm>
#include <functional>

namespace lmkit {

void BpeMerger::append(std::string_view word, std::vector<TokenId>& out) {
  symbols_.clear();
  symbols_.reserve(word.size());
  for (const char c : word) {
    TokenId token = vocabulary_.of_byte(static_cast<std::uint8_t>(c));
    if (token == no_token) token = missing_byte_;
    const auto i = static_cast<Index>(symbols_.size());
    if (token != no_token) symbols_.push_back({token, i - 1, i + 1});
  }
  if (symbols_.empty()) return;
  symbols_.back().right = none;

  for (auto i = static_cast<Index>(symbols_.size()) - 1; i >= 0; --i) await_merge(i);
  while (!ranks_.empty()) {
    const std::uint32_t rank = ranks_.front();
    take_batch(rank);
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      if (symbols_[batch_[i]].rank != rank) continue;  // it or its neighbour merged otherwise since
      merge_with_right(batch_[i]);
      // Only a table whose merges use tokens that later ones make can bring up a better rank here.
      if (!ranks_.empty() && ranks_.front() < rank)
        for (++i; i < batch_.size(); ++i)
          if (symbols_[batch_[i]].rank == rank) await_merge(batch_[i]);
    }
  }
  for (Index i = 0; i != none; i = symbols_[i].right) out.push_back(symbols_[i].token);
}

void BpeMerger::await_merge(Index at) {
  leave_list(at);
  Symbol& symbol = symbols_[at];
  symbol.rank = symbol.right == none ? PairTable::none : vocabulary_.rank(symbol.token, symbols_[symbol.right].token);
  if (symbol.rank == PairTable::none) return;

  Index& first = first_[symbol.rank];
  if (first == none) {
    ranks_.push_back(symbol.rank);
    std::ranges::push_heap(ranks_, std::greater{});
  } else {
    symbols_[first].previous = at;
  }
  symbol.previous = none;
  symbol.next = first;
  first = at;
}

void BpeMerger::leave_list(Index at) {
  Symbol& symbol = symbols_[at];
  if (symbol.previous != not_waiting) {
    (symbol.previous == none ? first_[symbol.rank] : symbols_[symbol.previous].next) = symbol.next;
    if (symbol.next != none) symbols_[symbol.next].previous = symbol.previous;
  }
  symbol.previous = not_waiting;
  symbol.rank = PairTable::none;
}

void BpeMerger::take_batch(std::uint32_t rank) {
  std::ranges::pop_heap(ranks_, std::greater{});
  ranks_.pop_back();
  batch_.clear();
  for (Index i = first_[rank]; i != none; i = symbols_[i].next) {
    batch_.push_back(i);
    symbols_[i].previous = not_waiting;
  }
  first_[rank] = none;
  if (!std::ranges::is_sorted(batch_)) std::ranges::sort(batch_);
}

void BpeMerger::merge_with_right(Index at) {
  Symbol& symbol = symbols_[at];
  const Index eaten = symbol.right;
  leave_list(eaten);
  symbol.token = vocabulary_.merged(symbol.rank);
  symbol.right = symbols_[eaten].right;
  if (symbol.right != none) symbols_[symbol.right].left = at;
  if (symbol.left != none) await_merge(symbol.left);
  await_merge(at);
}

}  // namespace lmkit
