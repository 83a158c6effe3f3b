// SPDX-License-Identifier: Apache-2.0
#include "bpe.hpp"

#include <algorithm>

namespace lmkit {
namespace {

constexpr std::size_t short_word = 48;  // bytes: about where a queue is as fast
constexpr std::size_t ahead = 8;        // merges whose cells are fetched while one is made: halves the time of a long word

}  // namespace

void BpeMerger::append(std::string_view word, std::vector<TokenId>& out) {
  cells_.clear();
  cells_.reserve(word.size());
  for (const char c : word) {
    TokenId token = vocabulary_.of_byte(static_cast<std::uint8_t>(c));
    if (token == no_token) token = missing_byte_;
    if (token != no_token) cells_.push_back({token});
  }
  for (Index i = 0; i < size(); ++i) find_rank(i);
  if (cells_.size() <= short_word) merge_short();
  else merge_long();
  for (Index i = 0; i < size(); i = right_of(i)) out.push_back(cells_[i].token);
}

void BpeMerger::merge_short() {
  for (;;) {
    const auto best = std::ranges::min_element(cells_, {}, &Cell::rank);
    if (best == cells_.end() || best->rank == PairTable::none) return;
    merge_with_right(static_cast<Index>(best - cells_.begin()));
  }
}

void BpeMerger::merge_long() {
  if (!queue_) queue_.emplace(vocabulary_.merges());
  batch_.reserve(cells_.size());
  queue_->reserve(cells_.size());
  for (Index i = size() - 1; i >= 0; --i) await_merge(i);
  while (!queue_->empty()) {
    const std::uint32_t rank = queue_->best();
    queue_->pop(batch_);
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      if (i + ahead < batch_.size()) __builtin_prefetch(&cells_[batch_[i + ahead]]);
      if (cells_[batch_[i]].rank != rank) continue;  // it or its neighbour merged otherwise since
      merge_with_right(batch_[i]);
      if (batch_[i] > 0) await_merge(left_of(batch_[i]));
      await_merge(batch_[i]);
      // Only a table whose merges use tokens that later ones make can bring up a better rank here.
      if (!queue_->empty() && queue_->best() < rank)
        for (++i; i < batch_.size(); ++i)
          if (cells_[batch_[i]].rank == rank) queue_->push(rank, batch_[i]);
    }
  }
}

void BpeMerger::find_rank(Index at) {
  const Index right = right_of(at);
  cells_[at].rank = right < size() ? vocabulary_.rank(cells_[at].token, cells_[right].token) : PairTable::none;
}

void BpeMerger::merge_with_right(Index at) {
  const Index eaten = right_of(at), end = right_of(eaten);
  cells_[at].token = vocabulary_.merged(cells_[at].rank);
  cells_[eaten] = {at - end};
  cells_[at + 1].token = cells_[end - 1].token = at - end;
  if (at > 0) find_rank(left_of(at));
  find_rank(at);
}

}  // namespace lmkit
