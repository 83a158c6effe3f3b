// SPDX-License-Identifier: Apache-2.0
//
// MemRatio: an allocator policy with a chosen pool size and a limit on what one sequence may hold.
//
// Size, one of
//   ratio=0.8      that share of what the ledger leaves (total - used)
//   bytes=512MiB   that much
//   tokens=4096    room for that many tokens
// and never more than all sequences at full length can fill.
//
// max-share=0.5  No sequence is given more than that share of the pool while others run or wait; alone it may take all. What
// it took while alone it keeps: taking it back for a later arrival would let two long sequences undo each other's work for
// ever. So a newcomer may have to wait for one sequence to end, and one longer than its share waits for a quiet moment.
//
// Within the shares, blocks go to who came first, as in WholePool.
#pragma once

#include <lmkit/base/settings.hpp>
#include <lmkit/concepts/allocator_policy.hpp>

#include <cstdint>
#include <string_view>

namespace lmkit::mem_ratio {

class MemRatio {
 public:
  explicit MemRatio(Settings settings);  // throws Error when an option makes no sense

  std::int64_t kv_bytes(const MemoryReport& report) const;  // throws Error(memory) when bytes or tokens ask for more than is left
  Decision decide(const PoolState& pool, const Demand& demand) const noexcept;

 private:
  double ratio_ = 0.8;
  std::int64_t bytes_ = 0;   // if not 0
  std::int64_t tokens_ = 0;  // if not 0
  double max_share_ = 1;
};

static_assert(AllocatorPolicy<MemRatio>);

// "512MiB", "1.5G", "4096": K, M, G and T are powers of 1024, with or without "iB". Throws Error.
std::int64_t parse_bytes(std::string_view text);

}  // namespace lmkit::mem_ratio
