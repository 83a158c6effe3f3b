// SPDX-License-Identifier: Apache-2.0
//
// The sampler against a reference in double that sorts everything and follows the order in sampler.hpp word by word.
#include <catch.hpp>

#include <lmkit/engine/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

using namespace lmkit;

namespace {

std::vector<float> random_logits(std::mt19937_64& random, int size, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Probability of every token.
std::vector<double> reference(const std::vector<float>& logits, const SamplingParams& p, const std::vector<TokenId>& prompt,
                              const std::vector<TokenId>& answer) {
  std::vector<double> x(logits.begin(), logits.end());
  for (const auto& [token, bias] : p.logit_bias) x[token] += bias;
  std::map<TokenId, int> seen;
  for (const TokenId token : prompt) seen[token] += 0;
  for (const TokenId token : answer) seen[token] += 1;
  for (const auto& [token, count] : seen) {
    x[token] = x[token] > 0 ? x[token] / p.repetition_penalty : x[token] * p.repetition_penalty;
    x[token] -= (count > 0 ? p.presence_penalty : 0) + count * p.frequency_penalty;
  }
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
  std::vector<double> out(x.size(), 0.0);
  if (p.temperature == 0) {
    out[order[0]] = 1;
    return out;
  }
  if (p.top_k > 0 && p.top_k < static_cast<int>(order.size())) order.resize(p.top_k);
  const auto weight = [&](int token) { return std::exp((x[token] - x[order[0]]) / p.temperature); };
  double sum = 0;
  for (const int token : order) sum += weight(token);
  double reached = 0;
  std::size_t kept = 0;
  while (kept < order.size() && reached < p.top_p * sum * (1 - 1e-7)) reached += weight(order[kept++]);
  order.resize(std::max<std::size_t>(1, kept));
  while (order.size() > 1 && weight(order.back()) < p.min_p) order.pop_back();
  sum = 0;
  for (const int token : order) sum += weight(token);
  for (const int token : order) out[token] = weight(token) / sum;
  return out;
}

std::vector<SamplingParams> parameter_sets() {
  return {{},
          {.temperature = 0.7f},
          {.temperature = 1.8f},
          {.top_k = 1},
          {.temperature = 1.5f, .top_k = 7},
          {.top_p = 0.8f},
          {.temperature = 1.3f, .top_k = 20, .top_p = 0.7f},
          {.min_p = 0.1f},
          {.temperature = 0.9f, .top_k = 30, .top_p = 0.95f, .min_p = 0.05f},
          {.temperature = 1.1f, .top_p = 0.9f, .min_p = 0.02f},
          {.repetition_penalty = 1.4f},
          {.presence_penalty = 0.8f, .frequency_penalty = 0.3f},
          {.top_p = 0.9f, .repetition_penalty = 0.8f, .presence_penalty = -0.5f, .logit_bias = {{3, 2.5f}, {90, -4.0f}, {5, 1.0f}}}};
}

}  // namespace

TEST_CASE("drawn tokens follow the reference distribution (chi-square)") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Sampler sampler;
  for (SamplingParams params : parameter_sets()) {
    const std::vector<float> logits = random_logits(random, 200, 1.5f);
    std::vector<TokenId> prompt(30), answer(20);
    for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 200);
    for (TokenId& token : answer) token = static_cast<TokenId>(random() % 200);
    const std::vector<double> expected = reference(logits, params, prompt, answer);

    params.seed = random();
    SamplerState state(params, prompt);
    for (const TokenId token : answer) state.accept(token);
    constexpr int draws = 20000;
    std::vector<int> counts(logits.size(), 0);
    for (int position = 0; position < draws; ++position) {
      std::vector<float> scratch = logits;
      ++counts[sampler.choose(scratch, params, state, position, -1).token];
    }
    double chi_square = 0, rest_expected = 0, rest_count = 0;
    int cells = 0;
    for (std::size_t token = 0; token < counts.size(); ++token) {
      CAPTURE(token, params.temperature, params.top_k, params.top_p, params.min_p);
      if (expected[token] == 0) REQUIRE(counts[token] == 0);
      const double mean = expected[token] * draws;
      if (mean < 10) {
        rest_expected += mean;
        rest_count += counts[token];
        continue;
      }
      chi_square += (counts[token] - mean) * (counts[token] - mean) / mean;
      ++cells;
    }
    if (rest_expected > 10) {
      chi_square += (rest_count - rest_expected) * (rest_count - rest_expected) / rest_expected;
      ++cells;
    }
    // mean cells - 1, variance 2 (cells - 1): six standard deviations
    CAPTURE(params.temperature, params.top_k, params.top_p, params.min_p, cells);
    REQUIRE(chi_square <= (cells - 1) + 6 * std::sqrt(2.0 * std::max(1, cells - 1)) + 1e-6);
  }
}

TEST_CASE("every allowed token can be drawn and no other, over a large vocabulary") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Sampler sampler;
  for (SamplingParams params : parameter_sets()) {
    params.logit_bias.clear();
    const std::vector<float> logits = random_logits(random, 49152, 4.0f);
    const std::vector<double> expected = reference(logits, params, {}, {});
    for (int i = 0; i < 50; ++i) {
      params.seed = random();
      const SamplerState state(params, {});
      std::vector<float> scratch = logits;
      const Choice choice = sampler.choose(scratch, params, state, i, 0);
      REQUIRE(expected[choice.token] > 0);
    }
  }
}

TEST_CASE("a bias of -inf bans a token, whatever else is asked for") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Sampler sampler;
  constexpr int vocabulary = 1003;
  std::vector<TokenId> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  for (SamplingParams params : parameter_sets()) {
    for (const std::size_t left : {1, 3, 600}) {
      std::shuffle(order.begin(), order.end(), random);
      const std::vector<TokenId> allowed(order.begin(), order.begin() + left);
      params.logit_bias = {{allowed[0], 0.5f}, {order[left], 1e30f}};  // a ban outweighs any other bias
      for (std::size_t i = left; i < order.size(); ++i) params.logit_bias.push_back({order[i], -INFINITY});
      REQUIRE(problem_of(params, vocabulary).empty());
      const std::vector<float> logits = random_logits(random, vocabulary, 3.0f);
      for (const float temperature : {params.temperature, 0.0f}) {
        params.temperature = temperature;
        for (int position = 0; position < 20; ++position) {
          params.seed = random();
          SamplerState state(params, std::vector<TokenId>(order.begin(), order.begin() + 40));
          state.accept(order[1]);
          std::vector<float> scratch = logits;
          const Choice choice = sampler.choose(scratch, params, state, position, 0);
          REQUIRE(std::find(allowed.begin(), allowed.end(), choice.token) != allowed.end());
          REQUIRE(choice.logprob == Approx(logits[choice.token] - log_normalizer(logits)));
        }
      }
    }
  }
}

TEST_CASE("banning every token is refused") {
  SamplingParams params;
  for (TokenId token = 0; token < 50; ++token) params.logit_bias.push_back({token % 49, -INFINITY});
  REQUIRE(problem_of(params, 50).empty());
  params.logit_bias.push_back({49, -INFINITY});
  REQUIRE(problem_of(params, 50) == "logit_bias bans every token; expected one that is left");
  std::vector<float> logits(50, 1.0f);
  REQUIRE(Sampler().choose(logits, params, SamplerState(params, {}), 0, -1).token == -1);
  params.logit_bias = {{3, INFINITY}};
  REQUIRE_FALSE(problem_of(params, 50).empty());
}

TEST_CASE("greedy takes the most likely token, the first of equals") {
  Sampler sampler;
  const SamplingParams params{.temperature = 0};
  const SamplerState state(params, {});
  std::vector<float> logits = {0, 3, -1, 3, 2};
  REQUIRE(sampler.choose(logits, params, state, 0, -1).token == 1);
  SamplingParams biased = params;
  biased.logit_bias = {{4, 5.0f}};
  const Choice choice = sampler.choose(logits, biased, SamplerState(biased, {}), 0, 2);
  REQUIRE(choice.token == 4);
  const double sum = 1 + 2 * std::exp(3.0) + std::exp(-1.0) + std::exp(2.0);
  REQUIRE(choice.logprob == Approx(2 - std::log(sum)));
  REQUIRE(choice.top.size() == 2);
  REQUIRE(choice.top[0].token == 1);
  REQUIRE(choice.top[1].token == 3);
}

TEST_CASE("a temperature too small to divide by is greedy") {
  std::vector<float> logits = {0, 3, -1, 2.9f, 2};
  for (const SamplingParams& params : {SamplingParams{.temperature = 1e-40f}, {.temperature = 1e-45f, .top_k = 2}, {.temperature = 1e-39f, .top_p = 0.9f}})
    REQUIRE(Sampler().choose(logits, params, SamplerState(params, {}), 0, -1).token == 1);
}

TEST_CASE("penalties change exactly the tokens that were seen") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const SamplingParams params{.temperature = 0, .repetition_penalty = 1.7f, .presence_penalty = 0.4f, .frequency_penalty = 0.9f};
  const std::vector<TokenId> prompt = {1, 2, 2, 5}, answer = {2, 7, 7, 7};
  SamplerState state(params, prompt);
  for (const TokenId token : answer) state.accept(token);
  const std::vector<float> logits = random_logits(random, 12, 3);
  std::vector<float> changed = logits;
  Sampler().choose(changed, params, state, 0, -1);
  const std::map<TokenId, float> subtracted = {{1, 0.0f}, {5, 0.0f}, {2, 0.4f + 0.9f}, {7, 0.4f + 3 * 0.9f}};
  for (TokenId token = 0; token < 12; ++token) {
    float expected = logits[token];
    if (const auto found = subtracted.find(token); found != subtracted.end()) {
      expected = (expected > 0 ? expected / 1.7f : expected * 1.7f) - found->second;
    }
    REQUIRE(changed[token] == Approx(expected));
  }
}

TEST_CASE("the same seed and position give the same token, another seed another stream") {
  Sampler sampler;
  std::mt19937_64 random(5);
  const std::vector<float> logits = random_logits(random, 1000, 1);
  const auto stream = [&](std::uint64_t seed) {
    const SamplingParams params{.seed = seed};
    const SamplerState state(params, {});
    std::vector<TokenId> tokens;
    for (int position = 0; position < 50; ++position) {
      std::vector<float> scratch = logits;
      tokens.push_back(sampler.choose(scratch, params, state, position, -1).token);
    }
    return tokens;
  };
  REQUIRE(stream(1) == stream(1));
  REQUIRE(stream(1) != stream(2));
}

TEST_CASE("Philox4x32-10 gives the published vector") {
  // Random123's known answers: counter 0, key 0 -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8
  const std::uint64_t bits = 0x6627e8d5e169c58du;
  REQUIRE(uniform_of(0, 0) == static_cast<double>(bits >> 11) * 0x1p-53);
}

TEST_CASE("logits that are not numbers give no token") {
  Sampler sampler;
  for (const float bad : {std::nanf(""), INFINITY}) {
    for (const float temperature : {0.0f, 1.0f}) {
      for (const std::size_t place : {0u, 40u, 99u}) {
        std::vector<float> logits(100, 1.0f);
        logits[place] = bad;
        const SamplingParams params{.temperature = temperature, .seed = 1};
        REQUIRE(sampler.choose(logits, params, SamplerState(params, {}), 0, -1).token == -1);
      }
    }
  }
}

TEST_CASE("the log normalizer agrees with double") {
  std::mt19937_64 random(std::random_device{}());
  for (const float spread : {0.1f, 3.0f, 30.0f}) {
    const std::vector<float> logits = random_logits(random, 49152, spread);
    double sum = 0;
    const double largest = *std::max_element(logits.begin(), logits.end());
    for (const float logit : logits) sum += std::exp(logit - largest);
    REQUIRE(log_normalizer(logits) == Approx(largest + std::log(sum)).epsilon(1e-6));
  }
}
