// SPDX-License-Identifier: Apache-2.0
//
// The engine against the exact model's answers and distributions (tests/oracle/reference.py: single precision on dequantised
// weights), as tests/oracle/run make stored them.
#include "cli.hpp"

#include <lmkit/pipeline.hpp>

#include <boost/json.hpp>
#include <catch.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

using namespace lmkit;
using namespace lmkit::test;

namespace {

namespace json = boost::json;

json::value fixture(const char* name) { return json::parse(content_of(std::filesystem::path(LMKIT_TEST_ORACLE) / name)); }

std::vector<TokenId> ids_of(const json::value& array) {
  std::vector<TokenId> ids;
  for (const json::value& id : array.as_array()) ids.push_back(static_cast<TokenId>(id.as_int64()));
  return ids;
}

std::vector<TokenId> greedy_answer(Engine& engine, std::vector<TokenId> prompt, int tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = tokens;
  engine.submit(std::move(request));
  std::vector<TokenId> answer;
  while (engine.has_work()) {
    engine.step();
    for (const Event& event : engine.take_events()) {
      REQUIRE(event.finish != Finish::error);
      if (event.token >= 0) answer.push_back(event.token);
    }
  }
  return answer;
}

// KL divergence of the model's distribution from the oracle's most likely tokens and the rest as one token: a lower bound of
// the whole divergence, and close to it while the rest is small.
double divergence(std::span<const float> logits, const json::array& ids, const json::array& logprobs) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - top);
  const double log_sum = top + std::log(sum);
  double kl = 0, their_rest = 1, my_rest = 1;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const double theirs = logprobs[i].to_number<double>(), mine = logits[static_cast<std::size_t>(ids[i].as_int64())] - log_sum;
    kl += std::exp(theirs) * (theirs - mine);
    their_rest -= std::exp(theirs);
    my_rest -= std::exp(mine);
  }
  return their_rest > 1e-6 && my_rest > 1e-6 ? kl + their_rest * std::log(their_rest / my_rest) : kl;
}

}  // namespace

TEST_CASE("greedy answers are the exact model's, or part where its two best logits are close", "[oracle]") {
  const auto path = default_model();
  if (!path) {
    WARN("the default model is not in the cache (tools/test fetches it): nothing was tested");
    return;
  }
  Pipeline pipeline(open_model(*path), {}, {.max_sequences = 1, .session_len = 512});
  const json::value oracle = fixture("greedy.json");
  const double tolerance = oracle.at("logit_gap").to_number<double>();
  const json::array& answers = oracle.at("answers").as_array();
  int equal = 0;
  for (const json::value& answer : answers) {
    const std::vector<TokenId> theirs = ids_of(answer.at("answer"));
    const std::vector<TokenId> mine = greedy_answer(pipeline.engine(), ids_of(answer.at("ids")), static_cast<int>(theirs.size()));
    const auto [a, b] = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end());
    if (a == mine.end() && b == theirs.end()) {
      ++equal;
      continue;
    }
    const auto at = std::min<std::size_t>(static_cast<std::size_t>(b - theirs.begin()), theirs.size() - 1);
    const double gap = answer.at("gaps").at(at).to_number<double>();
    INFO(std::string(answer.at("prompt").as_string()) << ": token " << at << " differs where the gap is " << gap);
    CHECK(gap <= tolerance);
  }
  INFO(equal << " of " << answers.size() << " answers are equal");
  CHECK(equal >= static_cast<int>(answers.size()) - 1);
}

TEST_CASE("next-token distributions are the exact model's within the stated divergence", "[oracle]") {
  const auto path = default_model();
  if (!path) {
    WARN("the default model is not in the cache (tools/test fetches it): nothing was tested");
    return;
  }
  Pipeline pipeline(open_model(*path), {}, {.max_sequences = 1, .session_len = 512});
  Engine& engine = pipeline.engine();
  const auto vocabulary = static_cast<std::size_t>(pipeline.model().config().vocabulary);
  const json::value oracle = fixture("distributions.json");
  double sum = 0;
  int count = 0;
  for (const json::value& text : oracle.at("texts").as_array()) {
    std::size_t row = 0;
    engine.tap_logits([&](const StepPlan&, std::span<const float> logits) {
      for (; logits.size() >= vocabulary && row < text.at("top").as_array().size(); logits = logits.subspan(vocabulary), ++row) {
        sum += divergence(logits.first(vocabulary), text.at("top").at(row).as_array(), text.at("logprobs").at(row).as_array());
        ++count;
      }
    });
    Request request;
    request.prompt = ids_of(text.at("ids"));
    request.max_tokens = 1;
    request.prompt_logprobs = true;
    engine.submit(std::move(request));
    while (engine.has_work()) engine.step();
    engine.take_events();
    CHECK(row == text.at("ids").as_array().size());
  }
  INFO("mean divergence " << sum / count << " over " << count << " positions");
  CHECK(sum / count <= oracle.at("max_mean_kl").to_number<double>());
}
