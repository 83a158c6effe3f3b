// SPDX-License-Identifier: Apache-2.0
//
// What the engine's tests share: tiny pipelines, random requests, and a run to the end with every invariant checked.
#pragma once

#include <catch.hpp>
#include <tiny_model.hpp>

#include <lmkit/pipeline.hpp>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace lmkit::test {

inline std::uint64_t fresh_seed() { return std::random_device{}(); }

// A policy with a pool of so many blocks, that otherwise does as WholePool.
struct FixedPool {
  int blocks = 1 << 20;
  std::int64_t kv_bytes(const MemoryReport& report) const noexcept { return blocks * report.block_bytes; }
  Decision decide(const PoolState& pool, const Demand& demand) const noexcept { return WholePool{}.decide(pool, demand); }
};

using TinyPipeline = Pipeline<OneDevice, KvF16, FixedPool>;

struct TinyOptions {
  int blocks = 1 << 20;
  int max_sequences = 8;
  int max_batch_tokens = 128;
  int threads = 1;
};

inline std::unique_ptr<TinyPipeline> tiny_pipeline(std::shared_ptr<const ModelFile> model, const TinyOptions& options = {}) {
  TinyPipeline::Parts parts;
  parts.allocator.blocks = options.blocks;
  const EngineLimits limits{.threads = options.threads, .max_sequences = options.max_sequences, .max_batch_tokens = options.max_batch_tokens};
  return std::make_unique<TinyPipeline>(std::move(model), std::move(parts), limits);
}

inline std::vector<TokenId> random_prompt(std::mt19937_64& random, int size) {
  std::vector<TokenId> prompt(size);
  for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 256);
  return prompt;
}

inline Request greedy(std::vector<TokenId> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

struct Answer {
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> tops;
  std::vector<float> prompt_logprobs;
  Finish finish = Finish::none;
  std::string error;
  Usage usage;
};

using Answers = std::map<RequestId, Answer>;

inline void collect(Answers& answers, std::vector<Event> events) {
  for (Event& event : events) {
    Answer& answer = answers[event.id];
    REQUIRE(answer.finish == Finish::none);  // nothing after the last event
    if (event.token >= 0) {
      answer.tokens.push_back(event.token);
      answer.logprobs.push_back(event.logprob);
      answer.tops.push_back(std::move(event.top));
    }
    answer.text += event.text;
    if (!event.prompt_logprobs.empty()) answer.prompt_logprobs = event.prompt_logprobs;
    answer.finish = event.finish;
    answer.error = event.error;
    answer.usage = event.usage;
  }
}

inline void check_blocks(const Engine& engine) {
  const Stats stats = engine.stats();
  REQUIRE(stats.blocks_free + stats.blocks_held + stats.blocks_cached == stats.blocks_total);
  int held = 0;
  for (int id = 0; id < stats.blocks_total; ++id) held += engine.blocks().is_held(id);
  REQUIRE(held == stats.blocks_held);
}

// Steps until all requests have ended; nothing may be held then.
inline Answers run_to_end(Engine& engine, int most_steps = 100000) {
  Answers answers;
  for (int step = 0; engine.has_work(); ++step) {
    REQUIRE(step < most_steps);
    engine.step();
    check_blocks(engine);
    collect(answers, engine.take_events());
  }
  collect(answers, engine.take_events());
  REQUIRE(engine.stats().blocks_held == 0);
  return answers;
}

// Submits 300 requests, steps now and then, and cancels some while they are queued, run or are over.
inline Answers submit_and_cancel(Engine& engine, std::mt19937_64& random) {
  Answers answers;
  for (int i = 0; i < 300; ++i) {
    const RequestId id = engine.submit(greedy(random_prompt(random, 1 + static_cast<int>(random() % 150)), 30));
    for (std::uint64_t steps = random() % 4; steps-- > 0;) engine.step();
    if (random() % 2) engine.cancel(id - static_cast<RequestId>(random() % 4));
    check_blocks(engine);
    collect(answers, engine.take_events());
  }
  while (engine.has_work()) engine.step(), collect(answers, engine.take_events());
  collect(answers, engine.take_events());
  return answers;
}

}  // namespace lmkit::test
