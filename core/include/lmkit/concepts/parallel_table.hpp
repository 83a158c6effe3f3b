// SPDX-License-Identifier: Apache-2.0
//
// parallel_table<P>: the "lmkit.parallel/1" table of a ParallelStrategy whose Group is made from Settings or from nothing.
#pragma once

#include <lmkit/concepts/parallel_strategy.hpp>
#include <lmkit/concepts/to_table.hpp>

#include <vector>

namespace lmkit {

template <ParallelStrategy P>
  requires MadeFromSettings<typename P::Group>
struct ParallelSlots {
  struct Group {
    const lmkit_host* host;
    typename P::Group group;
  };
  struct Rank {
    const lmkit_host* host;
    P strategy;
    std::vector<std::int64_t> shards;  // scratch of all_gather
  };

  static lmkit_status create(const lmkit_host* host, const lmkit_setting* settings, std::int32_t count, void** group) noexcept {
    return guarded(host, [&] { *group = new Group{host, make_from_settings<typename P::Group>({settings, count})}; });
  }

  static void destroy(void* group) noexcept { delete static_cast<Group*>(group); }

  static void ranks(const void* group, lmkit_ranks* out) noexcept { *out = static_cast<const Group*>(group)->group.ranks(); }

  static lmkit_shard shard(const void* group, std::int32_t rank, std::int32_t role, std::int64_t units) noexcept {
    return static_cast<const Group*>(group)->group.shard(rank, static_cast<Role>(role), units);
  }

  static std::int64_t workspace_bytes(const void* group, std::int64_t max_elements) noexcept {
    return static_cast<const Group*>(group)->group.workspace_bytes(max_elements);
  }

  static lmkit_status join(void* group, std::int32_t rank, void* workspace, std::int64_t bytes, void** self) noexcept {
    auto& shared = *static_cast<Group*>(group);
    return guarded(shared.host, [&] {
      const std::span<std::byte> buffer(static_cast<std::byte*>(workspace), static_cast<std::size_t>(bytes));
      const auto size = static_cast<std::size_t>(shared.group.ranks().size);
      *self = new Rank{shared.host, shared.group.join(rank, buffer), std::vector<std::int64_t>(size)};
    });
  }

  static void leave(void* self) noexcept { delete static_cast<Rank*>(self); }

  static lmkit_status all_reduce_sum(void* self, void* data, std::int64_t count, lmkit_dtype dtype, lmkit_stream* stream) noexcept {
    auto& rank = *static_cast<Rank*>(self);
    if (dtype != LMKIT_F32) return refuse(rank, "all_reduce_sum adds 32-bit floats only");
    return status(rank.strategy.all_reduce_sum({static_cast<float*>(data), static_cast<std::size_t>(count)}, {stream, rank.host}));
  }

  static lmkit_status all_gather(void* self, const void* mine, void* all, std::int64_t rows, std::int64_t row_bytes,
                                 const std::int64_t* shard_bytes, lmkit_stream* stream) noexcept {
    auto& rank = *static_cast<Rank*>(self);
    for (std::size_t r = 0; r < rank.shards.size(); ++r) {
      if (shard_bytes[r] % static_cast<std::int64_t>(sizeof(float)) != 0) return refuse(rank, "all_gather takes whole floats only");
      rank.shards[r] = shard_bytes[r] / static_cast<std::int64_t>(sizeof(float));
    }
    const auto my_floats = static_cast<std::size_t>(rows * rank.shards[static_cast<std::size_t>(rank.strategy.rank())]);
    const auto all_floats = static_cast<std::size_t>(rows * row_bytes) / sizeof(float);
    return status(rank.strategy.all_gather({static_cast<const float*>(mine), my_floats}, {static_cast<float*>(all), all_floats}, rows,
                                           rank.shards, {stream, rank.host}));
  }

  static lmkit_status broadcast(void* self, void* data, std::int64_t bytes, std::int32_t root, lmkit_stream* stream) noexcept {
    auto& rank = *static_cast<Rank*>(self);
    return status(rank.strategy.broadcast({static_cast<std::byte*>(data), static_cast<std::size_t>(bytes)}, root, {stream, rank.host}));
  }

 private:
  static lmkit_status status(Status s) noexcept { return static_cast<lmkit_status>(s); }
  static lmkit_status refuse(const Rank& rank, const char* reason) noexcept {
    rank.host->fail(reason);
    return LMKIT_INVALID_ARGUMENT;
  }
};

template <class P>
inline constexpr lmkit_parallel parallel_table{
    .struct_size = sizeof(lmkit_parallel),
    .create = ParallelSlots<P>::create,
    .destroy = ParallelSlots<P>::destroy,
    .ranks = ParallelSlots<P>::ranks,
    .shard = ParallelSlots<P>::shard,
    .workspace_bytes = ParallelSlots<P>::workspace_bytes,
    .join = ParallelSlots<P>::join,
    .leave = ParallelSlots<P>::leave,
    .all_reduce_sum = ParallelSlots<P>::all_reduce_sum,
    .all_gather = ParallelSlots<P>::all_gather,
    .broadcast = ParallelSlots<P>::broadcast,
};

}  // namespace lmkit
