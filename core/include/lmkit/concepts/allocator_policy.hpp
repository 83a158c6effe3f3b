// SPDX-License-Identifier: Apache-2.0
//
// AllocatorPolicy: how much memory the KV pool may take, and which sequence gets its blocks.
//
// A policy is pure: it is given numbers and answers with a number or a verdict. It owns no memory, keeps no state
// about sequences, and so can be tested for fairness without an engine.
#pragma once

#include <lmkit/abi/allocator.h>

#include <concepts>
#include <cstdint>

namespace lmkit {

using MemoryReport = lmkit_memory_report;
using PoolState = lmkit_pool_state;
using Demand = lmkit_demand;
using Decision = lmkit_decision;
using Holder = lmkit_holder;

template <class A>
concept CutsPool = requires(const A policy, const MemoryReport& report) {
  { policy.kv_bytes(report) } -> std::same_as<std::int64_t>;  // set-up: may throw Error
};

template <class A>
concept Decides = requires(const A policy, const PoolState& pool, const Demand& demand) {
  { policy.decide(pool, demand) } noexcept -> std::same_as<Decision>;
};

template <class A>
concept AllocatorPolicy = std::movable<A> && CutsPool<A> && Decides<A>;

}  // namespace lmkit
