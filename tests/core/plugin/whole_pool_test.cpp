// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/any_allocator.hpp>

#include <catch.hpp>
#include <error_of.hpp>
#include <pool_simulation.hpp>

#include <random>
#include <vector>

using namespace lmkit;

namespace {

MemoryReport report(std::int64_t total, std::int64_t used, std::int64_t max_tokens) {
  return {.struct_size = sizeof(MemoryReport), .block_tokens = 64, .total = total, .used = used, .block_bytes = 1000, .max_tokens = max_tokens};
}

PoolState pool(int total, int free, int cached, const std::vector<Holder>& holders, int waiting = 0) {
  return {.struct_size = sizeof(PoolState), .total_blocks = total, .free_blocks = free, .cached_blocks = cached,
          .held_blocks = total - free - cached, .waiting = waiting, .holders = holders.data(),
          .holder_count = static_cast<std::int32_t>(holders.size())};
}

Demand demand(int blocks, Holder sequence) { return {.struct_size = sizeof(Demand), .blocks = blocks, .sequence = sequence}; }

}  // namespace

TEST_CASE("the whole pool is what is left, but no more than all sequences can fill") {
  const WholePool policy;
  CHECK(policy.kv_bytes(report(1'000'000, 400'000, 1 << 20)) == 600'000);
  CHECK(policy.kv_bytes(report(1'000'000, 400'000, 65)) == 2000);
  CHECK(policy.kv_bytes(report(400'000, 400'000, 65)) == 0);
  CHECK(policy.kv_bytes(report(400'000, 500'000, 65)) == 0);
}

TEST_CASE("the whole pool grants while it can, preempts the latest for the older, and lets others wait") {
  const WholePool policy;
  const std::vector<Holder> holders{{7, 1, 4, 0}, {8, 2, 3, 0}, {9, 3, 2, 0}};
  CHECK(policy.decide(pool(12, 2, 1, holders), demand(3, {10, 4, 0, 0})).verdict == LMKIT_GRANT);
  CHECK(policy.decide(pool(12, 2, 1, holders), demand(4, {10, 4, 0, 0})).verdict == LMKIT_WAIT);

  const Decision for_the_oldest = policy.decide(pool(9, 0, 0, holders), demand(1, holders[0]));
  CHECK(for_the_oldest.verdict == LMKIT_PREEMPT);
  CHECK(for_the_oldest.victim == 9);
  CHECK(policy.decide(pool(9, 0, 0, holders), demand(1, holders[2])).verdict == LMKIT_WAIT);     // keeps its two blocks
  CHECK(policy.decide(pool(9, 0, 0, {holders[0]}), demand(6, holders[0])).verdict == LMKIT_WAIT);  // more than the pool has
}

TEST_CASE("in the whole pool every sequence finishes, and the oldest moves in every round") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int workload = 0; workload < 200; ++workload) {
    const WholePool policy;
    const int blocks = 1 + static_cast<int>(random() % 20), sequences = 1 + static_cast<int>(random() % 30);
    PoolSimulation simulation(policy, blocks);
    simulation.observe = [&](const PoolState& state, const Demand& asks, const Decision& decision) {
      if (decision.verdict == LMKIT_GRANT) REQUIRE(asks.blocks <= state.free_blocks);
      if (decision.verdict == LMKIT_PREEMPT) REQUIRE(decision.victim > asks.sequence.id);  // ids are arrivals
      if (asks.blocks > state.free_blocks) REQUIRE(decision.verdict != LMKIT_GRANT);
    };
    int arrived = 0, rounds = 0;
    while (arrived < sequences || !simulation.idle()) {
      if (arrived < sequences && random() % 3 == 0) {
        const int needs = 1 + static_cast<int>(random() % static_cast<unsigned>(blocks));
        simulation.arrive({.id = ++arrived, .needs = needs, .step = 1 + static_cast<int>(random() % 3), .rounds_left = static_cast<int>(random() % 4)});
      }
      simulation.round();
      REQUIRE(simulation.forced == 0);  // so the oldest never waits
      REQUIRE(++rounds < 10000);
    }
    CHECK(simulation.finished == sequences);
    CHECK(simulation.free() == blocks);
  }
}

TEST_CASE("a built-in policy behind its own table decides the same") {
  const AnyAllocator policy;
  CHECK(policy.kv_bytes(report(1'000'000, 400'000, 65)) == 2000);
  const std::vector<Holder> holders{{7, 1, 4, 0}, {8, 2, 3, 0}};
  CHECK(policy.decide(pool(7, 0, 0, holders), demand(1, holders[0])).victim == 8);
}

TEST_CASE("a policy that wants more than is left is refused") {
  struct Greedy {
    std::int64_t kv_bytes(const MemoryReport& report) const { return report.total; }
    Decision decide(const PoolState&, const Demand&) const noexcept { return {}; }
  };
  struct Unable {
    std::int64_t kv_bytes(const MemoryReport&) const { throw Error(ErrorKind::memory, "nothing fits"); }
    Decision decide(const PoolState&, const Demand&) const noexcept { return {}; }
  };
  struct Unmade {
    explicit Unmade(Settings) { throw std::runtime_error("it is Monday"); }
    std::int64_t kv_bytes(const MemoryReport&) const { return 0; }
    Decision decide(const PoolState&, const Demand&) const noexcept { return {}; }
  };
  const AnyAllocator greedy(AnyAllocator::built_in<Greedy>("greedy"));
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { greedy.kv_bytes(report(100, 50, 65)); }), "greedy wants a KV pool of 100 bytes; expected at most the 50");
  const AnyAllocator unable(AnyAllocator::built_in<Unable>("unable"));
  CHECK_SAYS(error_of(ErrorKind::memory, [&] { unable.kv_bytes(report(100, 50, 65)); }), "unable cannot size the KV pool: nothing fits");
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { AnyAllocator(AnyAllocator::built_in<Unmade>("unmade")); }), "unmade cannot start: it is Monday");
}
