// SPDX-License-Identifier: Apache-2.0
//
// A model cut between ranks is the same model; so is a pipeline of plugins and one of C++ types.
#include "engine_fixture.hpp"

#include <kv_int4.hpp>
#include <lmkit/plugin/registry.hpp>

using namespace lmkit;
using namespace lmkit::test;

namespace {

Composition compose(const std::vector<std::string>& plugins) {
  std::vector<PluginSpec> specs;
  for (const std::string& plugin : plugins) specs.push_back(parse_plugin_spec(plugin));
  return PluginRegistry({LMKIT_TEST_PLUGINS}).compose(specs);
}

std::shared_ptr<AnyParallel::Group> ranks(int size) {
  return std::make_shared<AnyParallel::Group>(*compose({"tp-threads:size=" + std::to_string(size)}).parallel);
}

constexpr EngineLimits engine_limits{.threads = 2, .max_sequences = 4, .max_batch_tokens = 100};

struct Outcome {
  std::vector<float> logits;  // of all steps
  std::map<RequestId, std::vector<TokenId>> tokens;
  std::map<RequestId, std::vector<std::vector<TokenLogprob>>> tops;  // of each token, where asked for
};

template <class SomePipeline>
Outcome run(SomePipeline& pipeline, const std::vector<Request>& requests) {
  Outcome outcome;
  Engine& engine = pipeline.engine();
  engine.tap_logits([&](const StepPlan&, std::span<const float> logits) {
    outcome.logits.insert(outcome.logits.end(), logits.begin(), logits.end());
  });
  for (const Request& request : requests) engine.submit(request);
  for (auto& [id, answer] : run_to_end(engine)) {
    outcome.tokens[id] = std::move(answer.tokens);
    outcome.tops[id] = std::move(answer.tops);
  }
  return outcome;
}

// The same texts, or texts that part where the two tokens were that close.
bool same_or_close(const Outcome& a, const Outcome& b, RequestId id, float gap) {
  const std::vector<TokenId>&mine = a.tokens.at(id), &theirs = b.tokens.at(id);
  const auto parting = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end());
  if (parting.first == mine.end() || parting.second == theirs.end()) return mine.size() == theirs.size();
  const auto& top = a.tops.at(id)[static_cast<std::size_t>(parting.first - mine.begin())];
  const auto other = std::find_if(top.begin(), top.end(), [&](const TokenLogprob& t) { return t.token == *parting.second; });
  return other != top.end() && top.front().logprob - other->logprob < gap;
}

std::vector<Request> some_requests(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Request> requests;
  for (const int size : {70, 1, 130, 20, 64}) {
    requests.push_back(greedy(random_prompt(random, size), 20));
    requests.back().logprobs = 8;
  }
  return requests;
}

using RankedPipeline = Pipeline<AnyParallel, KvF16, WholePool>;

// Fails when its countdown ends, on one rank only.
class FailingKv {
 public:
  FailingKv(const KvShape& shape, std::shared_ptr<int> countdown) : kv_(shape), countdown_(std::move(countdown)) {}
  std::int64_t block_bytes() const noexcept { return kv_.block_bytes(); }
  std::int64_t workspace_bytes(const KvLimits& l) const noexcept { return kv_.workspace_bytes(l); }
  Status append(const KvAppend& args, Stream stream) noexcept { return kv_.append(args, stream); }
  Status attend(const KvAttend& args, Stream stream) noexcept {
    if (countdown_ && --*countdown_ == 0) {
      stream.host->fail("the rank's memory is gone");
      return Status::device_error;
    }
    return kv_.attend(args, stream);
  }
  Status copy_blocks(const KvCopy& args, Stream stream) noexcept { return kv_.copy_blocks(args, stream); }

 private:
  KvF16 kv_;
  std::shared_ptr<int> countdown_;
};

}  // namespace

TEST_CASE("ranks of any number give the logits and the text of one") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::q8_0}) {
    const auto model = std::make_shared<TinyModel>(seed, TinyShape{.query_heads = 9, .kv_heads = 3, .format = format});
    const std::vector<Request> requests = some_requests(seed);
    Pipeline<> whole(model, {}, engine_limits);
    const Outcome expected = run(whole, requests);
    for (const int size : {1, 2, 3, 5, 9}) {
      CAPTURE(size, block_of(format).name);
      RankedPipeline pipeline(model, {.group = ranks(size)}, engine_limits);
      REQUIRE(pipeline.ledger().ranks.size() == static_cast<std::size_t>(size));
      const Outcome found = run(pipeline, requests);
      if (size == 1) REQUIRE(found.logits == expected.logits);
      // Ranks add up in another order, and where that moves a key or value over a rounding step of fp16 (of int8, for the
      // activations of quantised weights) the difference grows on its way. The logits here spread over some tens.
      const float tolerance = format == WeightFormat::f32 ? 0.05f : 0.5f;
      for (std::size_t i = 0; i < 300; ++i) REQUIRE(std::fabs(found.logits[i] - expected.logits[i]) < tolerance);
      for (std::size_t i = 0; i < requests.size(); ++i) REQUIRE(same_or_close(expected, found, static_cast<RequestId>(i + 1), 2 * tolerance));
    }
  }
}

TEST_CASE("each rank holds its part only") {
  const auto model = std::make_shared<TinyModel>(1, TinyShape{.ffn = 320, .query_heads = 8, .kv_heads = 8});
  const Ledger one = Pipeline<>::plan(*model, {}, engine_limits);
  const Ledger four = RankedPipeline::plan(*model, {.group = ranks(4)}, engine_limits);
  REQUIRE(four.blocks == one.blocks);
  for (const RankLedger& rank : four.ranks) {
    REQUIRE(rank.kv_pool * 4 == one.ranks[0].kv_pool);
    REQUIRE(rank.weights_packed < one.ranks[0].weights_packed * 0.4);
  }
}

TEST_CASE("more ranks than query heads are refused with the limit") {
  const auto model = std::make_shared<TinyModel>(1);
  try {
    RankedPipeline pipeline(model, {.group = ranks(7)}, engine_limits);
    FAIL("7 ranks for 6 heads");
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::usage);
    REQUIRE(error.expected().find('6') != std::string::npos);
  }
}

TEST_CASE("a rank that fails in a step ends that step's requests, and nothing hangs") {
  const auto model = std::make_shared<TinyModel>(1);
  for (const int size : {1, 3}) {
    auto countdown = std::make_shared<int>(30);
    int made = 0;
    Pipeline<AnyParallel, FailingKv, WholePool>::Parts parts{.group = ranks(size)};
    std::mutex mutex;
    parts.make_kv = [&](const KvShape& shape) {
      const std::lock_guard lock(mutex);
      const bool fails = ++made == 2 * size;  // the plan makes each once, then the ranks do
      return FailingKv(shape, fails ? countdown : nullptr);
    };
    Pipeline<AnyParallel, FailingKv, WholePool> pipeline(model, std::move(parts), engine_limits);
    const std::vector<Request> requests = some_requests(1);
    for (const Request& request : requests) pipeline.engine().submit(request);
    Answers answers = run_to_end(pipeline.engine());
    int failed = 0;
    for (const auto& [id, answer] : answers) {
      REQUIRE(answer.finish != Finish::none);
      if (answer.finish != Finish::error) continue;
      ++failed;
      REQUIRE(answer.error.find("memory is gone") != std::string::npos);
    }
    REQUIRE(failed >= 1);
    pipeline.engine().submit(requests[1]);
    REQUIRE(run_to_end(pipeline.engine()).rbegin()->second.finish == Finish::length);
  }
}

TEST_CASE("a rank that cannot load ends in its error, and nothing hangs") {
  const auto model = std::make_shared<TinyModel>(1);
  std::atomic<int> made = 0;
  RankedPipeline::Parts parts{.group = ranks(3)};
  parts.make_kv = [&](const KvShape& shape) {
    if (++made == 5) throw Error(ErrorKind::plugin, "no place for this rank");
    return KvF16(shape);
  };
  REQUIRE_THROWS_WITH(RankedPipeline(model, std::move(parts), engine_limits), "no place for this rank");
}

TEST_CASE("a pipeline of C++ types and one of plugins give the same bits") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  using Composed = Pipeline<AnyParallel, AnyKvBackend, AnyAllocator>;
  const auto model = std::make_shared<TinyModel>(seed, TinyShape{.format = WeightFormat::q8_0});
  const std::vector<Request> requests = some_requests(seed);

  const auto composed = [&](const AnyKvBackend::Source& kv) {
    Composed pipeline(model, {.make_kv = [&kv](const KvShape& shape) { return AnyKvBackend(kv, shape); }}, engine_limits);
    return run(pipeline, requests);
  };
  Pipeline<> fp16(model, {}, engine_limits);
  const Outcome static_fp16 = run(fp16, requests), plugin_fp16 = composed(AnyKvBackend::built_in<KvF16>("kv-f16"));
  REQUIRE(static_fp16.logits == plugin_fp16.logits);

  Pipeline<OneDevice, KvInt4> int4(model, {}, engine_limits);
  const Outcome static_int4 = run(int4, requests), plugin_int4 = composed(*compose({"kv-int4"}).kv);
  REQUIRE(static_int4.logits == plugin_int4.logits);
  REQUIRE(static_int4.tokens == plugin_int4.tokens);
  REQUIRE(static_int4.logits != static_fp16.logits);
}

TEST_CASE("cut models, quantised caches and preemption compose") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  using Composed = Pipeline<AnyParallel, AnyKvBackend, AnyAllocator>;
  const auto model = std::make_shared<TinyModel>(seed, TinyShape{.query_heads = 9, .kv_heads = 3});
  for (const char* kv : {"kv-int8", "kv-int4"}) {
    for (const int size : {2, 5}) {
      CAPTURE(kv, size);
      const Composition roomy = compose({"tp-threads:size=" + std::to_string(size), kv});
      const Composition tight = compose({"tp-threads:size=" + std::to_string(size), kv, "mem-ratio:tokens=320,max-share=0.6"});
      const auto outcome = [&](const Composition& c) {
        Composed::Parts parts{.group = std::make_shared<AnyParallel::Group>(*c.parallel),
                              .make_kv = [&c](const KvShape& shape) { return AnyKvBackend(*c.kv, shape); }};
        if (c.allocator) parts.allocator = AnyAllocator(*c.allocator);
        Composed pipeline(model, std::move(parts), engine_limits);
        Outcome found = run(pipeline, some_requests(seed));
        if (c.allocator) REQUIRE(pipeline.ledger().blocks == 5);
        return found;
      };
      REQUIRE(outcome(roomy).tokens == outcome(tight).tokens);
    }
  }
}

TEST_CASE("a plan's hash depends on every number in it") {
  StepPlan plan;
  plan.tokens = {1, 2, 3};
  plan.token_sequence = {0, 0, 1};
  plan.query_starts = {0, 2, 3};
  plan.kv_lengths = {2, 9};
  plan.block_tables = {4, 5};
  plan.block_table_stride = 1;
  plan.logit_rows = {1, 2};
  const std::uint64_t hash = hash_of(plan);
  REQUIRE(hash == hash_of(StepPlan(plan)));
  for (auto list : {&StepPlan::tokens, &StepPlan::token_sequence, &StepPlan::query_starts, &StepPlan::kv_lengths, &StepPlan::block_tables,
                    &StepPlan::logit_rows}) {
    for (std::size_t i = 0; i < (plan.*list).size(); ++i) {
      StepPlan other = plan;
      ++(other.*list)[i];
      REQUIRE(hash_of(other) != hash);
    }
  }
  StepPlan other = plan;
  ++other.number;
  REQUIRE(hash_of(other) != hash);
}
