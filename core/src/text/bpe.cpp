// SPDX-License-Identifier: Apache-2.0
#include "bpe.hpp"

#include <algorithm>
#include <functional>

namespace lmkit {
namespace {
constexpr std::uint64_t no_candidate = ~std::uint64_t{0};
}

BpeMerger::Candidate BpeMerger::candidate(std::int32_t left) const noexcept {
  if (left < 0 || symbols_[left].token == no_token || symbols_[left].right < 0) return no_candidate;
  const std::uint32_t rank = vocabulary_.rank(symbols_[left].token, symbols_[symbols_[left].right].token);
  return rank == PairTable::none ? no_candidate : Candidate{rank} << 32 | static_cast<std::uint32_t>(left);
}

void BpeMerger::push(std::int32_t left) {
  const Candidate found = candidate(left);
  if (found == no_candidate) return;
  heap_.push_back(found);
  std::ranges::push_heap(heap_, std::greater{});
}

void BpeMerger::append(std::string_view word, std::vector<TokenId>& out) {
  symbols_.clear();
  for (const char c : word) {
    TokenId token = vocabulary_.of_byte(static_cast<std::uint8_t>(c));
    if (token == no_token) token = missing_byte_;
    const auto i = static_cast<std::int32_t>(symbols_.size());
    if (token != no_token) symbols_.push_back({token, i - 1, i + 1});
  }
  if (symbols_.empty()) return;
  symbols_.back().right = -1;

  heap_.clear();
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols_.size()); ++i)
    if (const Candidate found = candidate(i); found != no_candidate) heap_.push_back(found);
  std::ranges::make_heap(heap_, std::greater{});

  while (!heap_.empty()) {
    std::ranges::pop_heap(heap_, std::greater{});
    const Candidate best = heap_.back();
    heap_.pop_back();
    // Its symbols may have been merged with others since; it still counts if they make the same token.
    const auto left = static_cast<std::int32_t>(best & 0xFFFFFFFFu);
    const Candidate now = candidate(left);
    const TokenId merged = vocabulary_.merged(static_cast<std::uint32_t>(best >> 32));
    if (now == no_candidate || vocabulary_.merged(static_cast<std::uint32_t>(now >> 32)) != merged) continue;

    Symbol& symbol = symbols_[left];
    Symbol& eaten = symbols_[symbol.right];
    symbol.token = merged;
    symbol.right = eaten.right;
    eaten.token = no_token;
    if (symbol.right >= 0) symbols_[symbol.right].left = left;
    push(symbol.left);
    push(left);
  }
  for (std::int32_t i = 0; i >= 0; i = symbols_[i].right) out.push_back(symbols_[i].token);
}

}  // namespace lmkit
