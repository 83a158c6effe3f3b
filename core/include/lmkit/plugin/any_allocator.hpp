// SPDX-License-Identifier: Apache-2.0
//
// AnyAllocator: an AllocatorPolicy behind an "lmkit.allocator/1" table, chosen at run time.
#pragma once

#include <lmkit/builtin/whole_pool.hpp>
#include <lmkit/concepts/allocator_table.hpp>
#include <lmkit/plugin/provider.hpp>

#include <memory>

namespace lmkit {

class AnyAllocator {
 public:
  using Source = Provider<lmkit_allocator>;

  template <AllocatorPolicy A>
  static Source built_in(std::string name) {
    return {allocator_table<A>, std::move(name), {}};
  }

  AnyAllocator() : AnyAllocator(built_in<WholePool>("whole-pool")) {}
  explicit AnyAllocator(const Source& source);  // throws Error(plugin) with the plugin's reason

  // Throws Error(plugin) when the policy fails or wants more than is left.
  std::int64_t kv_bytes(const MemoryReport& report) const;

  Decision decide(const PoolState& pool, const Demand& demand) const noexcept { return table_.decide(self_.get(), &pool, &demand); }

 private:
  lmkit_allocator table_;
  std::string name_;
  std::unique_ptr<void, void (*)(void*)> self_;
};

static_assert(AllocatorPolicy<AnyAllocator>);

}  // namespace lmkit
