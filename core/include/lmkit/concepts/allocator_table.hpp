// SPDX-License-Identifier: Apache-2.0
//
// allocator_table<A>: the "lmkit.allocator/1" table of an AllocatorPolicy that is made from Settings or from nothing.
#pragma once

#include <lmkit/concepts/allocator_policy.hpp>
#include <lmkit/concepts/to_table.hpp>

namespace lmkit {

template <AllocatorPolicy A>
  requires MadeFromSettings<A>
struct AllocatorSlots {
  struct Instance {
    const lmkit_host* host;
    A policy;
  };

  static lmkit_status create(const lmkit_host* host, const lmkit_setting* settings, std::int32_t count, void** self) noexcept {
    return guarded(host, [&] { *self = new Instance{host, make_from_settings<A>({settings, count})}; });
  }

  static void destroy(void* self) noexcept { delete static_cast<Instance*>(self); }

  static lmkit_status kv_bytes(const void* self, const lmkit_memory_report* report, std::int64_t* bytes) noexcept {
    const auto& instance = *static_cast<const Instance*>(self);
    return guarded(instance.host, [&] { *bytes = instance.policy.kv_bytes(*report); });
  }

  static lmkit_decision decide(const void* self, const lmkit_pool_state* pool, const lmkit_demand* demand) noexcept {
    return static_cast<const Instance*>(self)->policy.decide(*pool, *demand);
  }
};

template <class A>
inline constexpr lmkit_allocator allocator_table{
    .struct_size = sizeof(lmkit_allocator),
    .create = AllocatorSlots<A>::create,
    .destroy = AllocatorSlots<A>::destroy,
    .kv_bytes = AllocatorSlots<A>::kv_bytes,
    .decide = AllocatorSlots<A>::decide,
};

}  // namespace lmkit
