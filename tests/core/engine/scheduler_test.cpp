// SPDX-License-Identifier: Apache-2.0
//
// Random workloads: whatever the policy answers and whoever cancels, every request ends once, nothing leaks, and the
// engine never stands still.
#include "engine_fixture.hpp"

#include <set>

using namespace lmkit;
using namespace lmkit::test;

namespace {

// Answers at random, also nonsense: victims that do not exist, grants that do not fit, waiting for ever.
struct Whimsical {
  int blocks = 8;
  int wait_percent = 30;
  std::shared_ptr<std::mt19937_64> random;

  std::int64_t kv_bytes(const MemoryReport& report) const noexcept { return blocks * report.block_bytes; }
  Decision decide(const PoolState& pool, const Demand& demand) const noexcept {
    check(pool, demand);
    const int dice = static_cast<int>((*random)() % 100);
    if (dice < wait_percent) return {LMKIT_WAIT, 0, 0};
    if (dice < wait_percent + 10) return {LMKIT_PREEMPT, 0, 12345678};
    if (dice < wait_percent + 20 && pool.holder_count > 0) return {LMKIT_PREEMPT, 0, pool.holders[(*random)() % pool.holder_count].id};
    return {LMKIT_GRANT, 0, 0};
  }
  // What a policy is told must be true.
  void check(const PoolState& pool, const Demand& demand) const noexcept {
    int held = 0;
    for (int i = 0; i < pool.holder_count; ++i) {
      held += pool.holders[i].blocks;
      if (i > 0 && pool.holders[i - 1].arrival >= pool.holders[i].arrival) std::abort();
      if (pool.holders[i].id == demand.sequence.id && pool.holders[i].blocks != demand.sequence.blocks) std::abort();
    }
    if (held != pool.held_blocks || pool.held_blocks + pool.free_blocks + pool.cached_blocks != pool.total_blocks) std::abort();
    if (pool.waiting < 0 || demand.blocks < 1) std::abort();
  }
};

using WhimsicalPipeline = Pipeline<OneDevice, KvF16, Whimsical>;

std::unique_ptr<WhimsicalPipeline> whimsical(std::uint64_t seed, int blocks, int wait_percent, int window) {
  WhimsicalPipeline::Parts parts;
  parts.allocator = {blocks, wait_percent, std::make_shared<std::mt19937_64>(seed)};
  return std::make_unique<WhimsicalPipeline>(std::make_shared<TinyModel>(seed, TinyShape{.window = window}), std::move(parts),
                                             EngineLimits{.threads = 1, .max_sequences = 6, .max_batch_tokens = 64});
}

void check_plan(const StepPlan& plan, const Engine& engine, int window) {
  REQUIRE(plan.size() <= 64);
  REQUIRE(plan.sequences() <= 6);
  REQUIRE(plan.sequences() >= 1);
  REQUIRE(static_cast<int>(plan.query_starts.size()) == plan.sequences() + 1);
  std::set<std::int32_t> used;
  for (int s = 0; s < plan.sequences(); ++s) {
    REQUIRE(plan.query_starts[s] < plan.query_starts[s + 1]);
    for (int t = plan.query_starts[s]; t < plan.query_starts[s + 1]; ++t) REQUIRE(plan.token_sequence[t] == s);
    const int computed = plan.kv_lengths[s] - (plan.query_starts[s + 1] - plan.query_starts[s]);
    const int oldest = window > 0 ? std::max(0, computed - window + 1) : 0;
    for (int b = oldest / block_tokens; b < blocks_for(plan.kv_lengths[s]); ++b) {
      const std::int32_t id = plan.block_tables[s * plan.block_table_stride + b];
      REQUIRE(engine.blocks().is_held(id));
      REQUIRE(used.insert(id).second);  // no block in two sequences
    }
  }
  REQUIRE(std::is_sorted(plan.logit_rows.begin(), plan.logit_rows.end()));
}

}  // namespace

TEST_CASE("random requests, cancels and verdicts leave nothing behind") {
  const auto [blocks, wait_percent, window] = GENERATE(table<int, int, int>(
      {{8, 30, 0}, {3, 10, 0}, {20, 0, 0}, {8, 100, 0}, {1, 50, 0}, {6, 20, 70}, {5, 100, 1}, {3, 30, 60}}));
  const auto seed = fresh_seed();
  CAPTURE(seed, blocks, wait_percent, window);
  std::mt19937_64 random(seed);
  const auto pipeline = whimsical(seed, blocks, wait_percent, window);
  Engine& engine = pipeline->engine();
  engine.tap_logits([&, window = window](const StepPlan& plan, std::span<const float>) { check_plan(plan, engine, window); });
  const int context = pipeline->ledger().session_len;
  std::set<RequestId> submitted;
  Answers answers;
  for (int step = 0; step < 400 || engine.has_work(); ++step) {
    REQUIRE(step < 20000);
    if (step < 400 && random() % 4 == 0) {
      Request request = greedy(random_prompt(random, static_cast<int>(random() % (context + 2))), static_cast<int>(random() % 100) - 1);
      request.prompt_logprobs = random() % 5 == 0;
      submitted.insert(engine.submit(std::move(request)));
    }
    if (!submitted.empty() && random() % 6 == 0) engine.cancel(static_cast<RequestId>(random() % (*submitted.rbegin() + 2)));
    const std::int64_t steps = engine.stats().steps;
    const bool had_work = engine.has_work();
    engine.step();
    if (had_work) REQUIRE(engine.stats().steps == steps + 1);  // somebody moved
    check_blocks(engine);
    collect(answers, engine.take_events());
  }
  REQUIRE(answers.size() == submitted.size());
  for (const auto& [id, answer] : answers) REQUIRE(answer.finish != Finish::none);
  REQUIRE(engine.stats().blocks_held == 0);
  REQUIRE(engine.stats().running == 0);
  REQUIRE(engine.stats().waiting == 0);
  REQUIRE(engine.stats().finished == static_cast<std::int64_t>(submitted.size()));
}

TEST_CASE("decodes go first, prompts share what is left, the queue keeps its order") {
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1), {.max_sequences = 4, .max_batch_tokens = 64});
  Engine& engine = pipeline->engine();
  std::vector<StepPlan> plans;
  engine.tap_logits([&](const StepPlan& plan, std::span<const float>) { plans.push_back(plan); });
  std::mt19937_64 random(1);
  engine.submit(greedy(random_prompt(random, 10), 50));
  engine.submit(greedy(random_prompt(random, 10), 50));
  engine.step();
  REQUIRE(plans.back().size() == 20);
  for (const int size : {100, 30, 5}) engine.submit(greedy(random_prompt(random, size), 50));
  engine.step();  // two decodes, 62 of the 100
  REQUIRE(plans.back().query_starts == std::vector<std::int32_t>{0, 1, 2, 64});
  engine.step();  // two decodes, the other 38, and 24 of the 30; the fifth must wait for a place
  REQUIRE(plans.back().query_starts == std::vector<std::int32_t>{0, 1, 2, 40, 64});
  engine.step();
  REQUIRE(plans.back().query_starts == std::vector<std::int32_t>{0, 1, 2, 3, 9});
  REQUIRE(engine.stats().waiting == 1);
  Answers answers = run_to_end(engine);
  REQUIRE(answers.size() == 5);
}

TEST_CASE("prompt scores come in slices that fit the logits buffer") {
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1), {.max_sequences = 4, .max_batch_tokens = 500});
  Engine& engine = pipeline->engine();
  engine.tap_logits([&](const StepPlan& plan, std::span<const float>) { REQUIRE(plan.logit_rows.size() <= 64); });
  std::mt19937_64 random(1);
  std::vector<RequestId> ids;
  for (int i = 0; i < 6; ++i) {
    Request request = greedy(random_prompt(random, 300), i % 2);
    request.prompt_logprobs = i != 3;
    ids.push_back(engine.submit(std::move(request)));
  }
  Answers answers = run_to_end(engine);
  for (int i = 0; i < 6; ++i) REQUIRE(answers[ids[i]].prompt_logprobs.size() == (i != 3 ? 299u : 0u));
}

TEST_CASE("with WholePool the oldest request is never preempted") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(seed), {.blocks = 8, .max_sequences = 8});
  for (int i = 0; i < 12; ++i) pipeline->engine().submit(greedy(random_prompt(random, 40 + static_cast<int>(random() % 100)), 200));
  Answers answers = run_to_end(pipeline->engine());
  REQUIRE(answers.begin()->second.usage.preemptions == 0);
  for (const auto& [id, answer] : answers) REQUIRE(answer.tokens.size() == 200);
}
