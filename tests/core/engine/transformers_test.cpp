// SPDX-License-Identifier: Apache-2.0
//
// Each architecture against Hugging Face transformers (tests/oracle/transformers_models.py): distributions over a prompt that
// is longer than the window and than two blocks, and a greedy answer; whole, in chunks and between ranks.
#include "engine_fixture.hpp"

#include <lmkit/builtin/cuda.hpp>
#include <lmkit/plugin/registry.hpp>
#include <plain_kv.hpp>
#include <seeded_model.hpp>

#include <algorithm>
#include <cmath>

using namespace lmkit;
using namespace lmkit::test;

namespace {

namespace json = boost::json;

const json::array& fixtures() {
  static const json::value value = lmkit_test::read_json(LMKIT_TEST_ORACLE "/transformers.json");
  return value.at("models").as_array();
}

template <class T>
std::vector<T> numbers(const json::value& list) {
  std::vector<T> out;
  for (const json::value& number : list.as_array()) out.push_back(number.to_number<T>());
  return out;
}

std::shared_ptr<const ModelFile> model_of(const json::value& fixture) {
  const lmkit_test::TemporaryDirectory directory;
  lmkit_test::write_seeded_model(directory, fixture.as_object());
  return open_model(directory.path().string());  // maps its files, so the directory may go
}

struct Outcome {
  std::vector<float> logits;    // of the prompt's last token
  std::vector<float> logprobs;  // of the prompt's tokens but the first
  std::vector<TokenId> answer;
};

template <class SomePipeline>
Outcome run(SomePipeline& pipeline, const json::value& fixture, bool scores_prompt = true) {
  const auto vocabulary = static_cast<std::size_t>(pipeline.model().config().vocabulary);
  Request request = greedy(numbers<TokenId>(fixture.at("prompt")), static_cast<int>(fixture.at("answer").as_array().size()));
  request.prompt_logprobs = scores_prompt;
  Engine& engine = pipeline.engine();
  Outcome outcome;
  int read = 0;
  engine.tap_logits([&](const StepPlan& plan, std::span<const float> logits) {
    read += plan.size();
    if (read == static_cast<int>(request.prompt.size())) outcome.logits.assign(logits.end() - static_cast<std::ptrdiff_t>(vocabulary), logits.end());
  });
  engine.submit(request);
  Answer answer = run_to_end(engine).begin()->second;
  outcome.answer = std::move(answer.tokens);
  outcome.logprobs = std::move(answer.prompt_logprobs);
  return outcome;
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double{a[i]} - b[i]));
  return most;
}

std::vector<double> log_softmax(const std::vector<float>& logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - top);
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - top - std::log(sum));
  return out;
}

double divergence(const std::vector<float>& exact, const std::vector<float>& found) {
  const auto p = log_softmax(exact), q = log_softmax(found);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

// What separates us from transformers: logits and log probabilities at most, and the divergence of the last distribution.
struct Bounds {
  double logits, divergence;
};
// All gaps of the fixtures' answers are at least 0.04, so the first of these leaves no choice.
constexpr Bounds order_of_sums{3e-4, 1e-7};  // measured: 1.1e-4, 6e-9
constexpr Bounds half_kv{5e-2, 1e-4};        // measured: 2.0e-2, 5.4e-6
constexpr Bounds gpu_f16{1e-1, 1e-3}, gpu_bf16{8e-1, 5e-2};

// Equal, or parting where transformers' two best logits are so close that the bounds let either win.
void check_answer(const std::vector<TokenId>& found, const json::value& fixture, const Bounds& bounds) {
  const auto expected = numbers<TokenId>(fixture.at("answer"));
  REQUIRE(found.size() == expected.size());
  const auto parting = std::mismatch(found.begin(), found.end(), expected.begin()).first;
  if (parting != found.end()) CHECK(fixture.at("gaps").at(static_cast<std::size_t>(parting - found.begin())).to_number<double>() < 2 * bounds.logits);
}

void check(const Outcome& found, const json::value& fixture, const Bounds& bounds) {
  const auto logits = numbers<float>(fixture.at("logits"));
  CHECK(worst(found.logits, logits) < bounds.logits);
  CHECK(worst(found.logprobs, numbers<float>(fixture.at("logprobs"))) < bounds.logits);
  CHECK(divergence(logits, found.logits) < bounds.divergence);
  check_answer(found.answer, fixture, bounds);
}

}  // namespace

TEST_CASE("each architecture gives transformers' distributions and greedy answer") {
  for (const json::value& fixture : fixtures()) {
    CAPTURE(std::string(fixture.at("name").as_string()));
    const auto model = model_of(fixture);
    Pipeline<OneDevice, PlainKv> exact(model, {}, {.threads = 2, .max_batch_tokens = 256});
    check(run(exact, fixture), fixture, order_of_sums);
    Pipeline<> half(model, {}, {.threads = 2, .max_batch_tokens = 256});
    check(run(half, fixture), fixture, half_kv);
  }
}

TEST_CASE("the same models as GGUF files give the same") {
  for (const json::value& fixture : fixtures()) {
    const std::string_view name = fixture.at("name").as_string();
    if (name == "llama" || name == "qwen2-window") continue;  // GGUF has no keys for Llama 3's scaling and windows by layer
    CAPTURE(std::string(name));
    const lmkit_test::TemporaryDirectory directory;
    const std::string path = directory.write("model.gguf", lmkit_test::seeded_gguf(fixture.as_object()));
    Pipeline<OneDevice, PlainKv> pipeline(open_model(path), {}, {.threads = 2, .max_batch_tokens = 256});
    check(run(pipeline, fixture), fixture, order_of_sums);
  }
}

TEST_CASE("a model that is off by little is not transformers' model") {
  const std::map<std::string, std::vector<json::object>> changes = {
      {"llama", {{{"rope_theta", 10100.0}}, {{"rope_scaling", nullptr}}, {{"rms_norm_eps", 1e-3}}}},
      {"mistral", {{{"sliding_window", 39}}, {{"sliding_window", 41}}}},
      {"qwen2", {{{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.1}}}}}},
      {"qwen2-window", {{{"sliding_window", 25}}, {{"max_window_layers", 2}}, {{"max_window_layers", 0}}, {{"use_sliding_window", false}}}},
  };
  for (json::value fixture : fixtures()) {
    const auto found = changes.find(std::string(fixture.at("name").as_string()));
    if (found == changes.end()) continue;
    const json::object config = fixture.at("config").as_object();
    for (const json::object& change : found->second) {
      CAPTURE(found->first, json::serialize(change));
      fixture.at("config") = config;
      for (const auto& [key, value] : change) fixture.at("config").as_object()[key] = value;
      Pipeline<OneDevice, PlainKv> pipeline(model_of(fixture), {}, {.threads = 2, .max_batch_tokens = 256});
      CHECK(worst(run(pipeline, fixture).logprobs, numbers<float>(fixture.at("logprobs"))) > 10 * order_of_sums.logits);
    }
  }
}

TEST_CASE("each architecture on a GPU gives transformers' distributions and greedy answer", "[gpu]") {
  if (!has_gpu()) {
    WARN("no GPU: nothing was tested");
    return;
  }
  for (const json::value& fixture : fixtures()) {
    const auto model = model_of(fixture);
    for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
      CAPTURE(std::string(fixture.at("name").as_string()), dtype == Dtype::f16);
      const Bounds& bounds = dtype == Dtype::f16 ? gpu_f16 : gpu_bf16;
      Pipeline<> pipeline(model, {.open_device = open_gpus(dtype)}, {.threads = 2, .max_sequences = 4, .max_batch_tokens = 256});
      const Outcome found = run(pipeline, fixture);
      check(found, fixture, bounds);
      Pipeline<> chunks(model, {.open_device = open_gpus(dtype)}, {.threads = 2, .max_sequences = 4, .max_batch_tokens = 37});
      check(run(chunks, fixture), fixture, bounds);

      pipeline.engine().tap_logits({});  // steps follow each other on the GPU, as when nobody looks
      pipeline.engine().submit(greedy(numbers<TokenId>(fixture.at("prompt")), static_cast<int>(found.answer.size())));
      check_answer(run_to_end(pipeline.engine()).begin()->second.tokens, fixture, bounds);
    }
  }
}

TEST_CASE("a prompt read in chunks, across the window's and the blocks' edges, is the whole prompt to the bit") {
  for (const json::value& fixture : fixtures()) {
    CAPTURE(std::string(fixture.at("name").as_string()));
    const auto model = model_of(fixture);
    Pipeline<> whole(model, {}, {.threads = 2, .max_batch_tokens = 256});
    const Outcome expected = run(whole, fixture, false);
    CHECK(whole.engine().stats().steps == static_cast<std::int64_t>(expected.answer.size()));
    for (const int tokens : {1, 23, 64}) {
      CAPTURE(tokens);
      Pipeline<> chunks(model, {}, {.threads = 1, .max_sequences = 1, .max_batch_tokens = tokens});
      const Outcome found = run(chunks, fixture, false);
      CHECK(found.logits == expected.logits);
      CHECK(found.answer == expected.answer);
    }
  }
}

TEST_CASE("each architecture cut between ranks gives transformers' answer") {
  const Composition two = PluginRegistry({LMKIT_TEST_PLUGINS}).compose(std::vector{parse_plugin_spec("tp-threads:size=2")});
  const Composition three = PluginRegistry({LMKIT_TEST_PLUGINS}).compose(std::vector{parse_plugin_spec("tp-threads:size=3")});
  for (const json::value& fixture : fixtures()) {
    CAPTURE(std::string(fixture.at("name").as_string()));
    const auto model = model_of(fixture);
    for (const Composition* composition : {&two, &three}) {
      Pipeline<AnyParallel, PlainKv> pipeline(model, {.group = std::make_shared<AnyParallel::Group>(*composition->parallel)},
                                            {.threads = 3, .max_batch_tokens = 256});
      check(run(pipeline, fixture), fixture, order_of_sums);
    }
  }
}
