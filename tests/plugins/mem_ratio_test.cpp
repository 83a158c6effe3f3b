// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/registry.hpp>

#include <catch.hpp>
#include <error_of.hpp>
#include <pool_simulation.hpp>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

using namespace lmkit;

namespace {

AnyAllocator mem_ratio(const std::string& settings) {
  const PluginRegistry registry({LMKIT_TEST_PLUGINS});
  return AnyAllocator(*registry.load(parse_plugin_spec(settings.empty() ? "mem-ratio" : "mem-ratio:" + settings)).allocator());
}

std::string refusal(const std::string& settings) {
  return error_of(ErrorKind::plugin, [&] { mem_ratio(settings); });
}

// A million bytes left; blocks of 64 tokens and 1000 bytes.
MemoryReport report(std::int64_t max_tokens = 1 << 30) {
  return {.struct_size = sizeof(MemoryReport), .block_tokens = 64, .total = 3'000'000, .used = 2'000'000, .block_bytes = 1000, .max_tokens = max_tokens};
}

PoolState pool(int total, const std::vector<Holder>& holders, int waiting = 0) {
  int held = 0;
  for (const Holder& holder : holders) held += holder.blocks;
  return {.struct_size = sizeof(PoolState), .total_blocks = total, .free_blocks = total - held, .cached_blocks = 0, .held_blocks = held,
          .waiting = waiting, .holders = holders.data(), .holder_count = static_cast<std::int32_t>(holders.size())};
}

Demand demand(int blocks, Holder sequence) { return {.struct_size = sizeof(Demand), .blocks = blocks, .sequence = sequence}; }

}  // namespace

TEST_CASE("mem-ratio sizes the pool by ratio, bytes or tokens, in whole blocks") {
  CHECK(mem_ratio("").kv_bytes(report()) == 800'000);
  CHECK(mem_ratio("ratio=0.25").kv_bytes(report()) == 250'000);
  CHECK(mem_ratio("ratio=1").kv_bytes(report()) == 1'000'000);
  CHECK(mem_ratio("ratio=0.0015").kv_bytes(report()) == 1000);
  CHECK(mem_ratio("bytes=5999").kv_bytes(report()) == 5000);
  CHECK(mem_ratio("bytes=100K").kv_bytes(report()) == 102'000);
  CHECK(mem_ratio("bytes=0.5MiB").kv_bytes(report()) == 524'000);
  CHECK(mem_ratio("tokens=1").kv_bytes(report()) == 1000);
  CHECK(mem_ratio("tokens=64").kv_bytes(report()) == 1000);
  CHECK(mem_ratio("tokens=65").kv_bytes(report()) == 2000);
}

TEST_CASE("mem-ratio takes no more than all sequences can fill") {
  CHECK(mem_ratio("ratio=0.5").kv_bytes(report(640)) == 10'000);
  CHECK(mem_ratio("bytes=100K").kv_bytes(report(640)) == 10'000);
  CHECK(mem_ratio("tokens=6400").kv_bytes(report(640)) == 10'000);
}

TEST_CASE("mem-ratio says what is left when bytes or tokens ask for more") {
  const std::string bytes = error_of(ErrorKind::memory, [] { mem_ratio("bytes=1GiB").kv_bytes(report()); });
  CHECK_SAYS(bytes, "bytes=1073741824 is more than the 1000000 bytes left");
  CHECK_SAYS(bytes, "tokens=64000");
  CHECK_SAYS(error_of(ErrorKind::memory, [] { mem_ratio("tokens=64001").kv_bytes(report()); }), "tokens=64001 is more than");
  CHECK(mem_ratio("tokens=64000").kv_bytes(report()) == 1'000'000);
}

TEST_CASE("mem-ratio refuses options that make no sense, saying what is allowed") {
  CHECK_SAYS(refusal("ratio=0"), "ratio=0 is out of range; expected a number from 0.001 to 1");
  CHECK_SAYS(refusal("ratio=1.2"), "ratio=1.2 is out of range; expected a number from 0.001 to 1");
  CHECK_SAYS(refusal("max-share=0"), "expected a number from 0.001 to 1");
  CHECK_SAYS(refusal("tokens=0"), "tokens=0 is out of range");
  CHECK_SAYS(refusal("ratio=0.5,tokens=100"), "more than one of ratio, bytes and tokens");
  for (const char* bytes : {"", "0", "-1", "x", "1X", "512MB", "1KiBx", "nan", "inf", "9999999T"})
    CHECK_SAYS(refusal("bytes=" + std::string(bytes)), "a size of at least 1 byte, such as 512MiB");
}

TEST_CASE("mem-ratio: max-share holds while others run or wait, and not for one alone") {
  const AnyAllocator policy = mem_ratio("max-share=0.5");
  const Holder half{1, 1, 5, 0}, other{2, 2, 1, 0};
  CHECK(policy.decide(pool(10, {half}), demand(1, half)).verdict == LMKIT_GRANT);
  CHECK(policy.decide(pool(10, {half}, 1), demand(1, half)).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {half, other}), demand(1, half)).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {half, other}), demand(4, other)).verdict == LMKIT_GRANT);
  CHECK(policy.decide(pool(10, {half, other}), demand(5, other)).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {}, 3), demand(6, {9, 9, 0, 0})).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {}), demand(10, {9, 9, 0, 0})).verdict == LMKIT_GRANT);
}

TEST_CASE("mem-ratio: who grew beyond its share while alone keeps its blocks, and gets no more") {
  const AnyAllocator policy = mem_ratio("max-share=0.5");
  const Holder grown{1, 1, 9, 0}, small{2, 2, 1, 0};
  CHECK(policy.decide(pool(12, {grown, small}), demand(2, small)).verdict == LMKIT_GRANT);
  CHECK(policy.decide(pool(12, {grown, small}), demand(1, grown)).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {grown, small}), demand(1, small)).verdict == LMKIT_WAIT);
  CHECK(policy.decide(pool(10, {grown}), demand(2, {3, 3, 0, 0})).verdict == LMKIT_WAIT);
}

TEST_CASE("mem-ratio: within the shares the latest arrival makes room for the older") {
  const AnyAllocator policy = mem_ratio("max-share=0.5");
  const Holder a{1, 1, 4, 0}, b{2, 2, 3, 0}, c{3, 3, 3, 0};
  const Decision decision = policy.decide(pool(10, {a, b, c}), demand(1, a));
  CHECK(decision.verdict == LMKIT_PREEMPT);
  CHECK(decision.victim == 3);
  CHECK(policy.decide(pool(10, {a, b, c}), demand(1, c)).verdict == LMKIT_WAIT);
}

TEST_CASE("mem-ratio: every workload finishes, shares are kept, and nobody is preempted without need") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (const char* settings : {"max-share=1", "max-share=0.5", "max-share=0.25", "max-share=0.01"}) {
    const AnyAllocator policy = mem_ratio(settings);
    const double share_of_one = std::stod(std::string(settings).substr(10));
    for (int workload = 0; workload < 100; ++workload) {
      const int blocks = 1 + static_cast<int>(random() % 20), sequences = 1 + static_cast<int>(random() % 30);
      const int share = std::max(1, static_cast<int>(blocks * share_of_one));
      PoolSimulation simulation(policy, blocks);
      simulation.observe = [&](const PoolState& state, const Demand& asks, const Decision& decision) {
        const bool alone = state.waiting == 0 && std::none_of(state.holders, state.holders + state.holder_count,
                                                              [&](const Holder& h) { return h.id != asks.sequence.id && h.blocks > 0; });
        const bool enough = asks.blocks <= state.free_blocks;
        if (alone) REQUIRE((decision.verdict == LMKIT_GRANT) == enough);
        if (decision.verdict == LMKIT_GRANT) {
          REQUIRE(enough);
          REQUIRE((alone || asks.sequence.blocks + asks.blocks <= share));
        }
        if (decision.verdict == LMKIT_PREEMPT) {
          REQUIRE_FALSE(enough);
          const auto victim = std::find_if(state.holders, state.holders + state.holder_count, [&](const Holder& h) { return h.id == decision.victim; });
          REQUIRE(victim != state.holders + state.holder_count);
          REQUIRE(victim->arrival > asks.sequence.arrival);
        }
        const bool is_oldest = state.holder_count > 0 && state.holders[0].id == asks.sequence.id;
        if (is_oldest && asks.sequence.blocks + asks.blocks <= share) REQUIRE(decision.verdict != LMKIT_WAIT);
      };
      int arrived = 0, rounds = 0;
      while (arrived < sequences || !simulation.idle()) {
        if (arrived < sequences && random() % 3 == 0) {
          const int needs = 1 + static_cast<int>(random() % static_cast<unsigned>(blocks));
          simulation.arrive({.id = ++arrived, .needs = needs, .step = 1 + static_cast<int>(random() % 3), .rounds_left = static_cast<int>(random() % 4)});
        }
        simulation.round();
        REQUIRE(++rounds < 20000);
      }
      CHECK(simulation.finished == sequences);
      CHECK(simulation.free() == blocks);
      if (share == blocks) CHECK(simulation.forced == 0);
    }
  }
}

TEST_CASE("mem-ratio: short sequences keep moving beside a greedy one") {
  const AnyAllocator policy = mem_ratio("max-share=0.5");
  PoolSimulation simulation(policy, 10);
  simulation.arrive({.id = 1, .needs = 10, .step = 1, .rounds_left = 1});
  int finished_beside_it = 0;
  for (int round = 0, id = 1; round < 200; ++round) {
    if (round % 4 == 1) simulation.arrive({.id = ++id, .needs = 2, .step = 1, .rounds_left = 1});
    simulation.round();
    finished_beside_it = simulation.finished;
  }
  CHECK(finished_beside_it >= 45);
  CHECK(simulation.preemptions <= 1);  // when the greedy one has 9 blocks, a short one the tenth, and nobody can move
}
