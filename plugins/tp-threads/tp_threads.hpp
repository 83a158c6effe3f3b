// SPDX-License-Identifier: Apache-2.0
//
// TpThreads: tensor parallelism between threads of one process. Each rank holds a contiguous part of the heads, of the FFN
// and of the vocabulary; sums and gathers go through the ranks' own memory.
//
// all_reduce_sum: every rank adds one slice of all ranks' data, in rank order, and writes the sum back to all of them. So
// each sum is taken once: all ranks see the same bits, and so does every run. Cost: each rank reads and writes `count` floats.
//
// A rank that leaves or fails breaks the group: the others' collectives return an error instead of waiting for it.
#pragma once

#include <lmkit/base/settings.hpp>
#include <lmkit/concepts/parallel_strategy.hpp>

#include "barrier.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace lmkit::tp_threads {

inline constexpr int most_ranks = 64;

// units / size each, and one more for the first units % size ranks.
constexpr Shard balanced_shard(int rank, int size, std::int64_t units) noexcept {
  const std::int64_t each = units / size, extra = units % size;
  const auto begin = [&](std::int64_t r) { return r * each + (r < extra ? r : extra); };
  return {begin(rank), begin(rank + 1)};
}

// What a rank brings to a collective. Written before the first meeting, read by the others until the second.
struct alignas(64) Offer {
  enum class Kind { none, all_reduce, all_gather, broadcast } kind = Kind::none;
  std::int64_t count = 0;  // must be the same on all ranks
  std::int64_t detail = 0;  // this too: rows of a gather, root of a broadcast
  void* writable = nullptr;
  const void* readable = nullptr;
};

struct Shared {
  explicit Shared(int size) : size(size), barrier(size), offers(static_cast<std::size_t>(size)), joined(static_cast<std::size_t>(size)) {}

  const int size;
  Barrier barrier;
  std::vector<Offer> offers;                // (size)
  std::vector<std::atomic<bool>> joined;    // (size)
};

class TpThreads {
 public:
  class Group {
   public:
    explicit Group(Settings settings) : Group(static_cast<int>(settings.integer("size", 2))) {}
    explicit Group(int size);  // 1 to most_ranks, else throws Error

    Ranks ranks() const noexcept { return {.size = shared_->size, .local_begin = 0, .local_end = shared_->size, .device = LMKIT_CPU}; }
    Shard shard(int rank, Role, std::int64_t units) const noexcept { return balanced_shard(rank, shared_->size, units); }
    std::int64_t workspace_bytes(std::int64_t) const noexcept { return 0; }
    TpThreads join(int rank, std::span<std::byte> workspace);  // throws Error for a rank that does not exist or has joined

   private:
    std::unique_ptr<Shared> shared_;
  };

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return shared_->size; }
  Shard shard(Role, std::int64_t units) const noexcept { return balanced_shard(rank_, shared_->size, units); }

  Status all_reduce_sum(std::span<float> data, Stream stream) noexcept;
  // mine and all do not overlap
  Status all_gather(std::span<const float> mine, std::span<float> all, std::int64_t rows, std::span<const std::int64_t> shards,
                    Stream stream) noexcept;
  Status broadcast(std::span<std::byte> data, int root, Stream stream) noexcept;

 private:
  struct Leave {
    void operator()(Shared* shared) const noexcept { shared->barrier.break_up(); }
  };

  TpThreads(Shared& shared, int rank) : shared_(&shared), rank_(rank) {}

  // Brings the offer, and once all have and they agree, works on them until all are done.
  template <class Work>
  Status together(const Offer& offer, Stream stream, Work&& work) noexcept;

  std::unique_ptr<Shared, Leave> shared_;  // the group's; leaving breaks it up
  int rank_;
};

static_assert(ParallelStrategy<TpThreads>);

}  // namespace lmkit::tp_threads
