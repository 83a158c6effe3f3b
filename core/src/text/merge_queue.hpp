// SPDX-License-Identifier: Apache-2.0
//
// MergeQueue: the places of a word where a merge waits, in one list per rank; a heap holds the ranks. The best rank is
// taken with all its places at once, from left to right. Lists are chained cache lines and only ever grow: who takes a
// rank checks whether a place still wants it, so nobody has to be found and removed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <vector>

namespace lmkit {

class MergeQueue {
 public:
  explicit MergeQueue(std::size_t ranks) : first_(ranks, none) {}

  bool empty() const noexcept { return ranks_.empty(); }
  std::uint32_t best() const noexcept { return ranks_.front(); }

  // Room for this many places of few ranks.
  void reserve(std::size_t places) { chunks_.reserve(places / places_per_chunk + 1); }

  void push(std::uint32_t rank, std::int32_t place) {
    std::int32_t& first = first_[rank];
    if (first == none) {
      ranks_.push_back(rank);
      std::ranges::push_heap(ranks_, std::greater{});
    }
    if (first == none || chunks_[first].used == places_per_chunk) first = new_chunk(first);
    Chunk& chunk = chunks_[first];
    chunk.places[chunk.used++] = place;
  }

  // Removes the best rank; its places in order, some of which may have got another rank since.
  void pop(std::vector<std::int32_t>& places) {
    const std::uint32_t rank = best();
    std::ranges::pop_heap(ranks_, std::greater{});
    ranks_.pop_back();
    places.clear();
    for (std::int32_t i = first_[rank]; i != none;) {
      Chunk& chunk = chunks_[i];
      places.insert(places.end(), std::reverse_iterator(chunk.places + chunk.used), std::reverse_iterator(chunk.places));
      const std::int32_t next = chunk.next;
      chunk.next = free_;
      free_ = i;
      i = next;
    }
    first_[rank] = none;
    if (!std::ranges::is_sorted(places)) std::ranges::sort(places);
  }

 private:
  static constexpr std::int32_t none = -1;
  static constexpr int places_per_chunk = 14;

  struct alignas(64) Chunk {
    std::int32_t next, used;
    std::int32_t places[places_per_chunk];
  };

  std::int32_t new_chunk(std::int32_t next) {
    std::int32_t i = free_;
    if (i == none) {
      i = static_cast<std::int32_t>(chunks_.size());
      chunks_.emplace_back();
    } else {
      free_ = chunks_[i].next;
    }
    chunks_[i].next = next;
    chunks_[i].used = 0;
    return i;
  }

  std::vector<std::int32_t> first_;   // per rank: the chunk that is being filled, which is the newest
  std::vector<std::uint32_t> ranks_;  // min-heap of those that have a chunk
  std::vector<Chunk> chunks_;
  std::int32_t free_ = none;
};

}  // namespace lmkit
