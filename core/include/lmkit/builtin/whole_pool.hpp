// SPDX-License-Identifier: Apache-2.0
//
// WholePool: the allocator policy that gives the KV pool all that is left, and its blocks to who came first.
//
// Nobody starves: only the latest arrival is ever preempted, so those that run are always the oldest, and the oldest
// of all can take every block of the pool before it has to give one back.
#pragma once

#include <lmkit/concepts/allocator_policy.hpp>

#include <algorithm>

namespace lmkit {

class WholePool {
 public:
  // All that is left, but no more than all sequences at full length can fill.
  std::int64_t kv_bytes(const MemoryReport& report) const noexcept {
    const std::int64_t left = std::max<std::int64_t>(0, report.total - report.used);
    const std::int64_t blocks = (report.max_tokens + report.block_tokens - 1) / report.block_tokens;
    return blocks <= left / report.block_bytes ? blocks * report.block_bytes : left;
  }

  // A demand that the whole pool cannot meet waits: to fail its request is the engine's decision.
  Decision decide(const PoolState& pool, const Demand& demand) const noexcept {
    if (demand.blocks <= pool.free_blocks + pool.cached_blocks) return {LMKIT_GRANT, 0, 0};
    const bool runs = demand.sequence.blocks > 0;
    if (!runs || demand.sequence.blocks + demand.blocks > pool.total_blocks) return {LMKIT_WAIT, 0, 0};
    const Holder victim = latest(pool, demand.sequence);
    return {LMKIT_PREEMPT, 0, victim.id};
  }

 private:
  static Holder latest(const PoolState& pool, const Holder& asker) noexcept {
    for (std::int32_t i = pool.holder_count; i-- > 0;) {
      const Holder& holder = pool.holders[i];
      if (holder.arrival <= asker.arrival) break;
      if (holder.blocks > 0) return holder;
    }
    return asker;
  }
};

static_assert(AllocatorPolicy<WholePool>);

}  // namespace lmkit
