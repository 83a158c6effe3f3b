// SPDX-License-Identifier: Apache-2.0
//
// The engine on a device whose work runs on after a call returns: steps in flight, recorded decodes and their fillers change
// no text. The device is the CPU behind a queue, so texts must be those of the CPU to the bit.
#include "engine_fixture.hpp"

#include <queued_cpu.hpp>

using namespace lmkit;
using namespace lmkit::test;

namespace {

using LatePipeline = Pipeline<OneDevice, QueuedKv<KvF16>, FixedPool>;

struct Late {
  std::unique_ptr<LatePipeline> pipeline;
  LateQueue* queue = nullptr;
  Engine& engine() { return pipeline->engine(); }
};

Late late_pipeline(std::shared_ptr<const ModelFile> model, const TinyOptions& options = {}) {
  const auto opened = std::make_shared<LateQueue*>();
  LatePipeline::Parts parts;
  parts.allocator.blocks = options.blocks;
  parts.open_device = [opened](int rank, Stream threads) {
    auto device = std::make_unique<QueuedCpu>(rank, threads);
    *opened = device->queue();
    return device;
  };
  parts.make_kv = [opened](const KvShape& shape) { return QueuedKv<KvF16>(shape, **opened); };
  const EngineLimits limits{.threads = options.threads, .max_sequences = options.max_sequences, .max_batch_tokens = options.max_batch_tokens};
  Late late{std::make_unique<LatePipeline>(std::move(model), std::move(parts), limits)};
  late.queue = *opened;
  late.queue->most_marks_behind = 0;
  return late;
}

// Requests of every kind that a device can meet; or only such as let the next step start before they are known.
std::vector<Request> some_requests(std::mt19937_64& random, int count, bool plain) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request = greedy(random_prompt(random, 1 + static_cast<int>(random() % 150)), static_cast<int>(random() % 50));
    request.ignore_eos = i % 2 == 0;
    if (i % 3 == 1) request.sampling = {.temperature = 1.2f, .top_k = 40, .top_p = 0.95f, .min_p = 0.01f, .seed = random()};
    if (i % 4 == 1) request.stop_tokens = {static_cast<TokenId>(random() % 256), static_cast<TokenId>(random() % 256)};
    requests.push_back(request);
    if (plain) continue;
    if (i % 5 == 2) request.sampling.repetition_penalty = 1.3f;
    if (i % 5 == 3) request.sampling.frequency_penalty = 0.7f;
    if (i % 7 == 4) request.sampling.logit_bias = {{65, 2.5f}, {66, -3.0f}};
    if (i % 7 == 3) request.logprobs = static_cast<int>(random() % 3);
    if (i % 11 == 4) request.prompt_logprobs = true;
    requests.back() = std::move(request);
  }
  return requests;
}

void require_same(const Answers& some, const Answers& others, const std::vector<Request>& requests) {
  REQUIRE(some.size() == others.size());
  for (const auto& [id, answer] : some) {
    INFO("request " << id);
    const Answer& other = others.at(id);
    CHECK(answer.error.empty());
    CHECK(answer.tokens == other.tokens);
    CHECK(answer.text == other.text);
    CHECK(answer.finish == other.finish);
    CHECK(answer.prompt_logprobs == other.prompt_logprobs);
    CHECK(answer.usage.generated_tokens == other.usage.generated_tokens);
    if (requests[static_cast<std::size_t>(id - 1)].logprobs < 0) continue;
    CHECK(answer.logprobs == other.logprobs);
    for (std::size_t i = 0; i < answer.tops.size(); ++i) CHECK(answer.tops[i].size() == other.tops[i].size());
  }
}

template <class SomePipeline>
Answers answers_of(SomePipeline& pipeline, const std::vector<Request>& requests) {
  for (const Request& request : requests) pipeline.engine().submit(request);
  return run_to_end(pipeline.engine());
}

}  // namespace

TEST_CASE("steps in flight give the texts of steps that are waited for, with preemption too") {
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const int window = GENERATE(0, 20);  // which gives blocks back while a step reads them
  const auto model = std::make_shared<TinyModel>(seed, TinyShape{.window = window});
  for (const auto& [blocks, plain] : {std::pair{1 << 20, false}, {9, false}, {1 << 20, true}, {9, true}}) {
    INFO(blocks << " blocks, plain: " << plain);
    const std::vector<Request> requests = some_requests(random, 60, plain);
    const TinyOptions options{.blocks = blocks, .max_sequences = blocks == 9 ? 12 : 40};  // of more than 16 decodes not each number is recorded
    Late late = late_pipeline(model, options);
    const Answers answers = answers_of(*late.pipeline, requests);
    require_same(answers, answers_of(*tiny_pipeline(model, options), requests), requests);
    if (plain) CHECK(late.queue->most_marks_behind == 2 * 3);  // of two steps: where their kernels begin and end, and their own end
    CHECK(late.queue->replays > 0);
    if (blocks == 9) CHECK(late.engine().stats().preemptions > 0);
  }
}

TEST_CASE("the device's idle time is that between each step and the next") {
  Late late = late_pipeline(std::make_shared<TinyModel>(fresh_seed()));
  Engine& engine = late.engine();
  const Stats before = engine.stats();
  engine.submit(greedy({1, 2, 3}, 10));
  run_to_end(engine);
  const Stats& after = engine.stats();
  CHECK(after.steps - before.steps >= 10);
  CHECK(after.device_idle_seconds - before.device_idle_seconds >= 9);  // a LateQueue says a second each
  CHECK(after.device_idle_seconds - before.device_idle_seconds <= static_cast<double>(after.steps - before.steps) + 3);  // and the steps before the first
}

TEST_CASE("plain requests keep a step in flight, and never more than one is ahead of the caller") {
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  Late late = late_pipeline(std::make_shared<TinyModel>(seed));
  Engine& engine = late.engine();
  engine.submit(greedy(random_prompt(random, 20), 10));
  std::vector<std::size_t> tokens_after_step;
  while (engine.has_work()) {
    engine.step();
    tokens_after_step.push_back(engine.take_events().size());
  }
  // the first call only starts; then every call delivers one
  REQUIRE(tokens_after_step.size() == 11);
  CHECK(tokens_after_step.front() == 0);
  CHECK(std::count(tokens_after_step.begin(), tokens_after_step.end(), 1) == 10);
}

TEST_CASE("requests cancelled while steps are in flight give every block back") {
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  Late late = late_pipeline(std::make_shared<TinyModel>(seed), {.blocks = 20});
  Engine& engine = late.engine();
  const Answers answers = submit_and_cancel(engine, random);
  CHECK(answers.size() == 300);
  for (const auto& [id, answer] : answers) CHECK((answer.finish == Finish::length || answer.finish == Finish::cancelled));
  CHECK(engine.stats().blocks_free == engine.stats().blocks_total);
}

TEST_CASE("a step that fails on its device ends its requests with the reason; later ones are answered") {
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto model = std::make_shared<TinyModel>(seed);
  Late late = late_pipeline(model);
  Engine& engine = late.engine();
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(greedy(random_prompt(random, 30), 20));
  for (const Request& request : requests) engine.submit(request);
  for (int i = 0; i < 4; ++i) engine.step();
  late.queue->fail_in = 1;
  Answers answers = run_to_end(engine);
  for (const auto& [id, answer] : answers) {
    CHECK(answer.finish == Finish::error);
    CHECK(answer.error == "the test said so");
  }
  for (const Request& request : requests) engine.submit(request);
  const Answers later = run_to_end(engine), expected = answers_of(*tiny_pipeline(model), requests);
  for (const auto& [id, answer] : later) CHECK(answer.tokens == expected.at(id - 5).tokens);
}

TEST_CASE("the sizes that decodes are recorded for reach from one to all, with few fillers") {
  for (const int sequences : {1, 2, 7, 16, 17, 100, 128, 1000}) {
    const std::vector<int> sizes = QueuedSteps::recorded_sizes(sequences);
    CHECK(sizes.front() == 1);
    CHECK(sizes.back() == sequences);
    for (std::size_t i = 1; i < sizes.size(); ++i) {
      CHECK(sizes[i] > sizes[i - 1]);
      CHECK(sizes[i] - sizes[i - 1] <= std::max(1, sizes[i] / 8));
    }
  }
}
