// SPDX-License-Identifier: Apache-2.0
//
// WholePool: the allocator policy that gives the KV pool all that is left, and its blocks to who came first.
//
// Nobody starves: only later arrivals than the asker are ever preempted, the latest first and only if that gives the asker
// what it needs, so the oldest sequence can take every block of the pool. Who can take from nobody waits and keeps what it has.
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
    const Holder& asker = demand.sequence;
    std::int64_t room = std::int64_t{pool.free_blocks} + pool.cached_blocks;
    if (demand.blocks <= room) return {LMKIT_GRANT, 0, 0};
    const Holder* latest = nullptr;  // of those after the asker that hold blocks
    for (std::int32_t i = pool.holder_count; asker.blocks > 0 && i-- > 0 && pool.holders[i].arrival > asker.arrival;) {
      if (latest == nullptr && pool.holders[i].blocks > 0) latest = &pool.holders[i];
      room += pool.holders[i].blocks;
      if (demand.blocks <= room) return {LMKIT_PREEMPT, 0, latest->id};  // it is not in vain
    }
    return {LMKIT_WAIT, 0, 0};
  }
};

static_assert(AllocatorPolicy<WholePool>);

}  // namespace lmkit
