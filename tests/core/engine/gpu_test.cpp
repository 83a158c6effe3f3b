// SPDX-License-Identifier: Apache-2.0
//
// The engine on a GPU: against the engine on the CPU, and against itself without CUDA graphs, without steps in flight,
// and on poisoned memory. Without a GPU these tests only say so.
#include "engine_fixture.hpp"

#include <lmkit/builtin/cuda.hpp>

#include <algorithm>
#include <cmath>

using namespace lmkit;
using namespace lmkit::test;

namespace {

bool without_gpu() {
  if (has_gpu()) return false;
  WARN("no GPU: not tested");
  return true;
}

// Shapes that the GPU's kernels take.
constexpr TinyShape gpu_shape{.hidden = 128, .ffn = 256, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .vocabulary = 304, .max_context = 1024};

struct GpuOptions {
  bool on_gpu = true;
  bool eager = false;
  int blocks = 1 << 20;
  int max_sequences = 8;
  int max_batch_tokens = 128;
};

std::unique_ptr<TinyPipeline> pipeline_of(const std::shared_ptr<const TinyModel>& model, const GpuOptions& options = {}) {
  TinyPipeline::Parts parts;
  parts.allocator.blocks = options.blocks;
  if (options.on_gpu) parts.open_device = open_gpus(Dtype::f16);
  return std::make_unique<TinyPipeline>(model, std::move(parts),
                                        EngineLimits{.threads = 2,
                                                     .max_sequences = options.max_sequences,
                                                     .max_batch_tokens = options.max_batch_tokens,
                                                     .eager = options.eager});
}

using Rows = std::map<std::pair<std::int64_t, int>, std::vector<float>>;  // by step and row

// Logits of a run of greedy requests; a tap keeps steps from overlapping.
Rows logits_of(TinyPipeline& pipeline, std::uint64_t seed, int requests = 6) {
  std::mt19937_64 random(seed);
  Rows rows;
  pipeline.engine().tap_logits([&](const StepPlan& plan, std::span<const float> logits) {
    const std::size_t vocabulary = gpu_shape.vocabulary;
    REQUIRE(logits.size() == plan.logit_rows.size() * vocabulary);
    for (std::size_t row = 0; row < plan.logit_rows.size(); ++row) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary);
      rows[{plan.number, static_cast<int>(row)}].assign(begin, begin + static_cast<std::ptrdiff_t>(vocabulary));
    }
  });
  for (int i = 0; i < requests; ++i) pipeline.engine().submit(greedy(random_prompt(random, 20 + i * 37 % 300), 12 + i % 5));
  run_to_end(pipeline.engine());
  return rows;
}

double divergence(std::span<const float> p, std::span<const float> q) {
  const double of_p = log_normalizer(p), of_q = log_normalizer(q);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i] - of_p) * ((p[i] - of_p) - (q[i] - of_q));
  return sum;
}

// Requests of every kind that a device can meet.
std::vector<Request> mixed_requests(std::mt19937_64& random, int count) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request = greedy(random_prompt(random, 1 + static_cast<int>(random() % 200)), 1 + static_cast<int>(random() % 60));
    request.ignore_eos = i % 2 == 0;
    if (i % 3 == 1) request.sampling = {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .seed = random()};
    if (i % 5 == 2) request.sampling.repetition_penalty = 1.3f;
    if (i % 7 == 3) request.logprobs = 2;
    if (i % 11 == 4) request.prompt_logprobs = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

Answers answers_of(Engine& engine, const std::vector<Request>& requests) {
  for (const Request& request : requests) engine.submit(request);
  return run_to_end(engine);
}

void require_same(const Answers& some, const Answers& others) {
  REQUIRE(some.size() == others.size());
  for (const auto& [id, answer] : some) {
    INFO("request " << id);
    CHECK(answer.error.empty());
    CHECK(answer.tokens == others.at(id).tokens);
    CHECK(answer.finish == others.at(id).finish);
    CHECK(answer.text == others.at(id).text);
  }
}

}  // namespace

TEST_CASE("a GPU gives the CPU's distributions") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  const Rows cpu = logits_of(*pipeline_of(model, {.on_gpu = false}), seed), gpu = logits_of(*pipeline_of(model), seed);
  // Texts part where two tokens are as likely; what is compared are the rows before any did: of the first step.
  double sum = 0, count = 0;
  for (const auto& [key, row] : cpu)
    if (key.first < 4 && gpu.contains(key)) sum += divergence(row, gpu.at(key)), ++count;
  REQUIRE(count > 3);
  CHECK(sum / count < 1e-3);
}

TEST_CASE("a replayed CUDA graph gives the bits of an eager step") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  // Up to 16 decodes are a recorded size themselves, most above are filled up to the next: both kinds are met, as sequences come and go.
  const Rows eager = logits_of(*pipeline_of(model, {.eager = true, .max_sequences = 40}), seed, 37);
  const Rows replayed = logits_of(*pipeline_of(model, {.max_sequences = 40}), seed, 37);
  REQUIRE(eager == replayed);
}

TEST_CASE("on a GPU other sequences and other chunks change a prompt's log probabilities by rounding alone") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  const auto scores_of = [&](int max_sequences, int max_batch_tokens) {
    std::mt19937_64 random(seed);
    std::vector<Request> requests;
    for (int i = 0; i < 24; ++i) {
      requests.push_back(greedy(random_prompt(random, 2 + static_cast<int>(random() % 300)), 1));
      requests.back().prompt_logprobs = true;
    }
    std::vector<float> scores;
    const auto pipeline = pipeline_of(model, {.max_sequences = max_sequences, .max_batch_tokens = max_batch_tokens});
    for (const auto& [id, answer] : answers_of(pipeline->engine(), requests)) scores.insert(scores.end(), answer.prompt_logprobs.begin(), answer.prompt_logprobs.end());
    return scores;
  };
  const std::vector<float> alone = scores_of(1, 512);
  const auto effect_of = [&](const char* what, const std::vector<float>& scores) {
    REQUIRE(scores.size() == alone.size());
    double most = 0, sum = 0;
    for (std::size_t i = 0; i < alone.size(); ++i) most = std::max(most, std::abs(double{scores[i]} - alone[i])), sum += std::abs(double{scores[i]} - alone[i]);
    WARN(what << " change log probabilities by up to " << most << ", " << sum / alone.size() << " in the mean of " << alone.size());
    CHECK(most < 0.05);
  };
  effect_of("batches of up to 24 prompts", scores_of(24, 512));
  effect_of("chunks of up to 64 tokens", scores_of(1, 64));
  effect_of("both", scores_of(24, 96));
}

TEST_CASE("steps in flight change no text: not with stops, penalties, scored prompts, nor with preemption") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  const std::vector<Request> requests = mixed_requests(random, 40);
  const auto overlapping = pipeline_of(model, {.max_sequences = 1}), waiting = pipeline_of(model, {.max_sequences = 1});
  waiting->engine().tap_logits([](const StepPlan&, std::span<const float>) {});
  // one sequence at a time: every row is computed in the same company
  require_same(answers_of(overlapping->engine(), requests), answers_of(waiting->engine(), requests));

  const auto crowded = pipeline_of(model, {.blocks = 12, .max_sequences = 8});
  const Answers answers = answers_of(crowded->engine(), requests);
  for (const auto& [id, answer] : answers) {
    INFO("request " << id);
    CHECK(answer.error.empty());
    CHECK((answer.finish == Finish::stop || answer.finish == Finish::length));
    if (answer.finish == Finish::length) CHECK(answer.usage.generated_tokens == requests[static_cast<std::size_t>(id - 1)].max_tokens);
  }
}

TEST_CASE("requests cancelled while steps are in flight on a GPU give every block back") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto pipeline = pipeline_of(std::make_shared<TinyModel>(seed, gpu_shape), {.blocks = 40});
  Engine& engine = pipeline->engine();
  const Answers answers = submit_and_cancel(engine, random);
  CHECK(answers.size() == 300);
  CHECK(engine.stats().blocks_free == engine.stats().blocks_total);
}

TEST_CASE("what lies in free blocks of a GPU's pool is never read") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) requests.push_back(greedy(random_prompt(random, 1 + static_cast<int>(random() % 200)), 30));
  const auto clean = pipeline_of(model), poisoned = pipeline_of(model);
  const auto fill = [](TinyPipeline& pipeline, int byte) {
    const std::span<std::byte> pool = pipeline.engine().executor().kv_pool(0);
    const std::vector<std::byte> bytes(pool.size(), static_cast<std::byte>(byte));
    pipeline.engine().executor().device(0).put(pool.data(), bytes.data(), static_cast<std::int64_t>(bytes.size()));
  };
  fill(*clean, 0);
  fill(*poisoned, 0xff);
  require_same(answers_of(clean->engine(), requests), answers_of(poisoned->engine(), requests));
}

TEST_CASE("blocks behind the window of all layers are given back on a GPU, and nobody reads them") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  TinyShape shape = gpu_shape;
  shape.window = 150;
  const auto model = std::make_shared<TinyModel>(seed, shape);
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(greedy(random_prompt(random, 1 + static_cast<int>(random() % 500)), 400));
  // one sequence at a time: every row is computed in the same company
  const auto roomy = pipeline_of(model, {.max_sequences = 1}), tight = pipeline_of(model, {.blocks = 8, .max_sequences = 1});
  REQUIRE(tight->ledger().session_len == shape.max_context);
  Engine& engine = tight->engine();
  engine.tap_logits([](const StepPlan&, std::span<const float>) {});  // steps are waited for
  for (const Request& request : requests) engine.submit(request);
  Answers answers;
  const std::span<std::byte> pool = engine.executor().kv_pool(0);
  const std::int64_t stride = tight->ledger().ranks[0].kv_block_bytes;
  const std::vector<std::byte> poison(stride, std::byte{0xff});
  while (engine.has_work()) {
    for (int id = 0; id < engine.blocks().total(); ++id)
      if (!engine.blocks().is_held(id)) engine.executor().device(0).put(pool.data() + id * stride, poison.data(), stride);
    engine.step();
    collect(answers, engine.take_events());
  }
  require_same(answers, answers_of(roomy->engine(), requests));
}

TEST_CASE("nothing is allocated on a GPU once the engine is ready, and the ledger holds") {
  if (without_gpu()) return;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto model = std::make_shared<TinyModel>(seed, gpu_shape);
  const auto used = [] {  // of the whole GPU: nobody else may come or go meanwhile
    const auto gpu = cuda_library().gpu(0);
    return gpu.memory - gpu.free;
  };
  const auto pipeline = pipeline_of(model, {.max_sequences = 32, .max_batch_tokens = 512});
  const RankLedger& ledger = pipeline->ledger().ranks.at(0);
  REQUIRE(pipeline->engine().executor().allocated(0) >= ledger.arena());
  const std::int64_t ready = used();
  CHECK(ready <= ledger.total());
  CHECK(ready >= ledger.total() - ledger.runtime);
  answers_of(pipeline->engine(), mixed_requests(random, 100));
  CHECK(used() == ready);
}

TEST_CASE("a limit on a GPU's memory is kept, and one that is too small names the line that broke it") {
  if (without_gpu()) return;
  const auto model = std::make_shared<TinyModel>(fresh_seed(), gpu_shape);
  TinyPipeline::Parts parts;
  parts.open_device = open_gpus(Dtype::f16);
  const std::int64_t in_use = cuda_library().gpu(0).memory - cuda_library().gpu(0).free;
  const EngineLimits enough{.threads = 1, .device_memory = in_use + (std::int64_t{600} << 20)};
  const Ledger ledger = TinyPipeline::plan(*model, parts, enough);
  CHECK(ledger.ranks[0].total() <= enough.device_memory);
  const EngineLimits too_small{.threads = 1, .device_memory = in_use + (std::int64_t{1} << 20)};
  CHECK_THROWS_WITH(TinyPipeline::plan(*model, parts, too_small), Catch::Contains("the KV pool has 0 blocks") && Catch::Contains("--device-memory-limit"));
}
