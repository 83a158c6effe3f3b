// SPDX-License-Identifier: Apache-2.0
#include "engine_fixture.hpp"

#include <kv_int4.hpp>

using namespace lmkit;
using namespace lmkit::test;

namespace {

std::shared_ptr<TinyModel> model_of(std::uint64_t seed, TinyShape shape = {}) { return std::make_shared<TinyModel>(seed, shape); }

// Each row of logits by the position it predicts, of a single request.
std::map<int, std::vector<float>> logits_of(TinyPipeline& pipeline, Request request) {
  std::map<int, std::vector<float>> rows;
  const std::size_t width = pipeline.model().config().vocabulary;
  pipeline.engine().tap_logits([&](const StepPlan& plan, std::span<const float> logits) {
    const int first = plan.kv_lengths[0] - plan.size();
    for (std::size_t i = 0; i < plan.logit_rows.size(); ++i) {
      const auto row = logits.subspan(i * width, width);
      rows[first + plan.logit_rows[i] + 1].assign(row.begin(), row.end());
    }
  });
  pipeline.engine().submit(std::move(request));
  run_to_end(pipeline.engine());
  return rows;
}

double largest_difference(const std::map<int, std::vector<float>>& a, const std::map<int, std::vector<float>>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (const auto& [position, row] : a) {
    const auto& other = b.at(position);
    for (std::size_t i = 0; i < row.size(); ++i) largest = std::max<double>(largest, std::fabs(row[i] - other[i]));
  }
  return largest;
}

// What no sequence holds becomes NaN in every float format.
void poison_free_blocks(Engine& engine) {
  const std::span<std::byte> pool = engine.executor().kv_pool(0);
  const std::size_t stride = pool.size() / engine.blocks().total();
  for (int id = 0; id < engine.blocks().total(); ++id) {
    if (!engine.blocks().is_held(id)) std::memset(pool.data() + id * stride, 0xff, stride);
  }
}

}  // namespace

TEST_CASE("a prompt read in chunks gives the logits of one read at once") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed);
  Request request = greedy(random_prompt(random, 150 + static_cast<int>(random() % 100)), 5);
  request.prompt_logprobs = true;
  const auto whole = logits_of(*tiny_pipeline(model, {.max_batch_tokens = 512}), request);
  REQUIRE(whole.size() == request.prompt.size() + 4);
  for (const int chunk : {1, 7, 64, 100}) {
    CAPTURE(chunk);
    // Attention may add up in another order; logits are about 10 in size.
    REQUIRE(largest_difference(whole, logits_of(*tiny_pipeline(model, {.max_sequences = 1, .max_batch_tokens = chunk}), request)) == 0);
  }
}

TEST_CASE("the other requests of a batch do not change a text") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed, {.format = WeightFormat::q8_0});
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    Request request = greedy(random_prompt(random, 1 + static_cast<int>(random() % 200)), 30);
    if (i % 2 == 1) {
      request.sampling = {.temperature = 0.9f, .top_p = 0.9f, .seed = random()};
    }
    requests.push_back(std::move(request));
  }
  const auto together = tiny_pipeline(model, {.max_sequences = 5, .max_batch_tokens = 96, .threads = 2});
  std::vector<RequestId> ids;
  for (const Request& request : requests) ids.push_back(together->engine().submit(request));
  Answers answers = run_to_end(together->engine());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto alone = tiny_pipeline(model, {.max_batch_tokens = 512});
    const RequestId id = alone->engine().submit(requests[i]);
    CAPTURE(i);
    REQUIRE(run_to_end(alone->engine())[id].tokens == answers[ids[i]].tokens);
    REQUIRE(answers[ids[i]].finish == Finish::length);
  }
}

TEST_CASE("preemption does not change a text") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed);
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request request = greedy(random_prompt(random, 20 + static_cast<int>(random() % 80)), 150);
    request.logprobs = 0;
    request.prompt_logprobs = i % 3 == 0;
    if (i % 2 == 1) request.sampling = {.temperature = 1.2f, .frequency_penalty = 0.3f, .seed = random()};
    requests.push_back(std::move(request));
  }
  const auto roomy = tiny_pipeline(model), tight = tiny_pipeline(model, {.blocks = 6});
  for (const Request& request : requests) {
    roomy->engine().submit(request);
    tight->engine().submit(request);
  }
  Answers expected = run_to_end(roomy->engine()), found = run_to_end(tight->engine());
  REQUIRE(roomy->engine().stats().preemptions == 0);
  REQUIRE(tight->engine().stats().preemptions > 0);
  for (auto& [id, answer] : expected) {
    CAPTURE(id);
    REQUIRE(found[id].tokens == answer.tokens);
    REQUIRE(found[id].text == answer.text);
    REQUIRE(found[id].prompt_logprobs.size() == answer.prompt_logprobs.size());
    for (std::size_t i = 0; i < answer.logprobs.size(); ++i) REQUIRE(found[id].logprobs[i] == Approx(answer.logprobs[i]).margin(1e-3));
  }
}

TEST_CASE("a free block's contents are never read") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed);
  const auto clean = tiny_pipeline(model, {.blocks = 12}), poisoned = tiny_pipeline(model, {.blocks = 12});
  Engine& engine = poisoned->engine();
  for (int i = 0; i < 8; ++i) {
    const Request request = greedy(random_prompt(random, 1 + static_cast<int>(random() % 150)), 60);
    clean->engine().submit(request);
    engine.submit(request);
  }
  Answers expected = run_to_end(clean->engine()), found;
  for (poison_free_blocks(engine); engine.has_work(); poison_free_blocks(engine)) {
    engine.step();
    collect(found, engine.take_events());
  }
  for (auto& [id, answer] : expected) REQUIRE(found[id].tokens == answer.tokens);
}

TEMPLATE_TEST_CASE("blocks behind the window of all layers are given back, and nobody reads them", "", KvF16, KvInt4) {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed, {.head_dim = 64, .max_context = 1024, .window = 150});
  const auto pipeline_of = [&](int blocks) {
    typename Pipeline<OneDevice, TestType, FixedPool>::Parts parts;
    parts.allocator.blocks = blocks;
    return std::make_unique<Pipeline<OneDevice, TestType, FixedPool>>(model, std::move(parts), EngineLimits{.threads = 1, .max_sequences = 4, .max_batch_tokens = 100});
  };
  const int most = blocks_for(149 + 100) + 2;  // of one sequence
  const auto roomy = pipeline_of(1000), tight = pipeline_of(most + 3);
  REQUIRE(roomy->ledger().blocks == 4 * most);
  REQUIRE(tight->ledger().kv_tokens() < 700);
  REQUIRE(tight->ledger().session_len == 1024);  // longer than the pool
  for (const int size : {300, 90, 250, 40, 499}) {
    const Request request = greedy(random_prompt(random, size), size == 300 ? -1 : 200);
    roomy->engine().submit(request);
    tight->engine().submit(request);
  }
  Answers expected = run_to_end(roomy->engine()), found;
  Engine& engine = tight->engine();
  for (poison_free_blocks(engine); engine.has_work(); poison_free_blocks(engine)) {
    engine.step();
    check_blocks(engine);
    REQUIRE(engine.stats().blocks_held <= most * engine.stats().running);
    collect(found, engine.take_events());
  }
  REQUIRE(roomy->engine().stats().preemptions == 0);
  REQUIRE(engine.stats().preemptions > 0);
  REQUIRE(engine.stats().blocks_held == 0);
  for (auto& [id, answer] : expected) {
    CAPTURE(id);
    REQUIRE(answer.finish == Finish::length);
    REQUIRE(found[id].tokens == answer.tokens);
  }
  REQUIRE(expected[1].usage.prompt_tokens + expected[1].usage.generated_tokens == 1024);
}

TEST_CASE("logprobs are those of the model's own distribution") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = model_of(seed);
  const auto pipeline = tiny_pipeline(model);
  Request request = greedy(random_prompt(random, 90), 10);
  request.logprobs = 5;
  request.prompt_logprobs = true;
  request.sampling = {.temperature = 0.5f, .top_k = 3, .repetition_penalty = 1.5f, .logit_bias = {{65, 4.0f}}, .seed = 1};
  std::map<int, std::vector<double>> log_p;  // by position, in double
  pipeline->engine().tap_logits([&](const StepPlan& plan, std::span<const float> logits) {
    for (std::size_t i = 0; i < plan.logit_rows.size(); ++i) {
      const auto row = logits.subspan(i * 300, 300);
      const double largest = *std::max_element(row.begin(), row.end());
      double sum = 0;
      for (const float logit : row) sum += std::exp(logit - largest);
      auto& out = log_p[plan.kv_lengths[0] - plan.size() + plan.logit_rows[i] + 1];
      for (const float logit : row) out.push_back(logit - largest - std::log(sum));
    }
  });
  pipeline->engine().submit(request);
  std::vector<Event> events;
  while (pipeline->engine().has_work()) {
    pipeline->engine().step();
    for (Event& event : pipeline->engine().take_events()) events.push_back(std::move(event));
  }
  REQUIRE(events.size() == 10);
  REQUIRE(events[0].prompt_logprobs.size() == 89);
  for (int i = 0; i < 89; ++i) REQUIRE(events[0].prompt_logprobs[i] == Approx(log_p.at(i + 1)[request.prompt[i + 1]]).margin(1e-4));
  for (int i = 0; i < 10; ++i) {
    const auto& row = log_p.at(90 + i);
    REQUIRE(events[i].logprob == Approx(row[events[i].token]).margin(1e-4));
    std::vector<double> sorted = row;
    std::sort(sorted.rbegin(), sorted.rend());
    REQUIRE(events[i].top.size() == 5);
    for (int j = 0; j < 5; ++j) {
      REQUIRE(events[i].top[j].logprob == Approx(sorted[j]).margin(1e-4));
      REQUIRE(events[i].top[j].logprob == Approx(row[events[i].top[j].token]).margin(1e-4));
    }
  }
}

TEST_CASE("a bad request fails alone") {
  const auto model = model_of(1);
  const auto pipeline = tiny_pipeline(model);
  Engine& engine = pipeline->engine();
  const std::vector<TokenId> prompt = {1, 2, 3};
  std::map<RequestId, std::string> expected;
  const auto bad = [&](const std::string& reason, auto&& change) {
    Request request = greedy(prompt, 3);
    change(request);
    expected[engine.submit(std::move(request))] = reason;
  };
  const RequestId good = engine.submit(greedy(prompt, 3));
  bad("empty", [](Request& r) { r.prompt.clear(); });
  bad("expected at most 511", [](Request& r) { r.prompt.assign(512, 5); });
  bad("expected at most 512", [](Request& r) { r.prompt.assign(513, 5), r.max_tokens = 0; });
  bad("token 300", [](Request& r) { r.prompt.push_back(300); });
  bad("token -1", [](Request& r) { r.prompt.push_back(-1); });
  bad("stop_tokens", [](Request& r) { r.stop_tokens = {300}; });
  bad("max_tokens", [](Request& r) { r.max_tokens = -2; });
  bad("logprobs", [](Request& r) { r.logprobs = 101; });
  bad("stop string", [](Request& r) { r.stop = {""}; });
  bad("stop string", [](Request& r) { r.stop = {"\xff"}; });
  bad("stop strings", [](Request& r) { r.stop.assign(17, "x"); });
  bad("temperature", [](Request& r) { r.sampling.temperature = -1; });
  bad("temperature", [](Request& r) { r.sampling.temperature = NAN; });
  bad("top_k", [](Request& r) { r.sampling.top_k = -1; });
  bad("top_p", [](Request& r) { r.sampling.top_p = 0; });
  bad("top_p", [](Request& r) { r.sampling.top_p = 1.5f; });
  bad("min_p", [](Request& r) { r.sampling.min_p = 1; });
  bad("repetition_penalty", [](Request& r) { r.sampling.repetition_penalty = 0; });
  bad("presence_penalty", [](Request& r) { r.sampling.presence_penalty = INFINITY; });
  bad("frequency_penalty", [](Request& r) { r.sampling.frequency_penalty = NAN; });
  bad("logit_bias", [](Request& r) { r.sampling.logit_bias = {{300, 1.0f}}; });
  bad("logit_bias", [](Request& r) { r.sampling.logit_bias = {{1, NAN}}; });
  bad("logit_bias", [](Request& r) { r.sampling.logit_bias = {{1, INFINITY}}; });
  bad("bans every token", [](Request& r) { for (TokenId token = 0; token < 300; ++token) r.sampling.logit_bias.push_back({token, -INFINITY}); });
  Answers answers = run_to_end(engine);
  for (const auto& [id, reason] : expected) {
    CAPTURE(answers[id].error);
    REQUIRE(answers[id].finish == Finish::error);
    REQUIRE(answers[id].error.find(reason) != std::string::npos);
  }
  REQUIRE(answers[good].finish == Finish::length);
  REQUIRE(answers[good].tokens.size() == 3);
}

TEST_CASE("an answer ends at max_tokens, at the context and at stop tokens") {
  const auto pipeline = tiny_pipeline(model_of(2));
  Engine& engine = pipeline->engine();
  const RequestId nothing = engine.submit(greedy({1, 2, 3}, 0));
  const RequestId to_the_brim = engine.submit(greedy(std::vector<TokenId>(500, 9), -1));
  Answers answers = run_to_end(engine);
  REQUIRE(answers[nothing].tokens.empty());
  REQUIRE(answers[nothing].finish == Finish::length);
  REQUIRE(answers[to_the_brim].tokens.size() == 12);

  Request stopped = greedy(std::vector<TokenId>(500, 9), -1);
  stopped.stop_tokens = {answers[to_the_brim].tokens[4]};
  const RequestId id = engine.submit(stopped);
  const Answer answer = run_to_end(engine)[id];
  REQUIRE(answer.finish == Finish::stop);
  REQUIRE(answer.tokens.size() <= 5);
  REQUIRE(answer.usage.prompt_tokens == 500);
}

TEST_CASE("end tokens end an answer unless they are ignored") {
  const auto model = model_of(3);
  const auto pipeline = tiny_pipeline(model);
  Request request = greedy({7}, 20);
  request.sampling.logit_bias = {{model->end_of_turn(), 1000.0f}};
  const RequestId ignoring = pipeline->engine().submit(request);
  request.ignore_eos = false;
  const RequestId obeying = pipeline->engine().submit(request);
  Answers answers = run_to_end(pipeline->engine());
  REQUIRE(answers[ignoring].tokens.size() == 20);
  REQUIRE(answers[obeying].finish == Finish::stop);
  REQUIRE(answers[obeying].text.empty());
}

TEST_CASE("stop strings end the text before them, wherever tokens fall") {
  const auto model = model_of(4);
  const auto pipeline = tiny_pipeline(model);
  Request request = greedy({7}, 5);
  // Letters only, so that each token is one byte of text.
  for (int token = 0; token < 300; ++token) {
    if (token < 'a' || token > 'z') request.sampling.logit_bias.push_back({token, -INFINITY});
  }
  request.max_tokens = 40;
  const RequestId plain_id = pipeline->engine().submit(request);
  const std::string plain = run_to_end(pipeline->engine())[plain_id].text;
  REQUIRE(plain.size() == 40);
  for (const auto& [begin, size] : {std::pair{5, 1}, {5, 4}, {12, 9}, {0, 3}}) {
    const std::string stop = plain.substr(begin, size);
    request.stop = {"ZZZ", stop, stop + "never"};
    const RequestId id = pipeline->engine().submit(request);
    const Answer answer = run_to_end(pipeline->engine())[id];
    REQUIRE(answer.finish == Finish::stop);
    REQUIRE(answer.text == plain.substr(0, plain.find(stop)));
  }
}
