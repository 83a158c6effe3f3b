// SPDX-License-Identifier: Apache-2.0
//
// half-pool: a third party's allocator policy. The pool takes half of what is left; blocks go to who asks first.
#include <lmkit/plugin_sdk.hpp>

namespace {

struct HalfPool {
  std::int64_t kv_bytes(const lmkit::MemoryReport& report) const {
    const std::int64_t blocks = (report.total - report.used) / 2 / report.block_bytes;
    const std::int64_t useful = (report.max_tokens + report.block_tokens - 1) / report.block_tokens;
    return (blocks < useful ? blocks : useful) * report.block_bytes;
  }

  lmkit::Decision decide(const lmkit::PoolState& pool, const lmkit::Demand& demand) const noexcept {
    const bool enough = demand.blocks <= pool.free_blocks + pool.cached_blocks;
    return {enough ? LMKIT_GRANT : LMKIT_WAIT, 0, 0};
  }
};

}  // namespace

LMKIT_PLUGIN_ENTRY = lmkit::plugin::describe("half-pool", "1.0.0", "the KV pool takes half of what is left", "MIT",
                                             lmkit::plugin::options<>, lmkit::plugin::serves<lmkit::allocator_table<HalfPool>>);
