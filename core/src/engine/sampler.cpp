// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/sampler.hpp>
#include <lmkit/kernels/softmax.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <unordered_set>

namespace lmkit {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

float largest_of(std::span<const float> values) noexcept { return kernels::largest(values.data(), std::ssize(values)); }

double sum_of(std::span<const float> values) noexcept { return kernels::sum(values.data(), std::ssize(values)); }

TokenId first_with(std::span<const float> logits, float value) noexcept {
  return static_cast<TokenId>(std::find(logits.begin(), logits.end(), value) - logits.begin());
}

}  // namespace

std::string problem_of(const SamplingParams& p, int vocabulary) {
  const auto wrong = [](const char* name, auto value, const char* range) { return fmt::format("{} is {}; expected {}", name, value, range); };
  if (!(p.temperature >= 0) || !std::isfinite(p.temperature)) return wrong("temperature", p.temperature, "a number from 0");
  if (p.top_k < 0) return wrong("top_k", p.top_k, "a number from 0");
  if (!(p.top_p > 0 && p.top_p <= 1)) return wrong("top_p", p.top_p, "a number above 0, at most 1");
  if (!(p.min_p >= 0 && p.min_p < 1)) return wrong("min_p", p.min_p, "a number from 0, below 1");
  if (!(p.repetition_penalty > 0) || !std::isfinite(p.repetition_penalty)) return wrong("repetition_penalty", p.repetition_penalty, "a number above 0");
  if (!std::isfinite(p.presence_penalty)) return wrong("presence_penalty", p.presence_penalty, "a number");
  if (!std::isfinite(p.frequency_penalty)) return wrong("frequency_penalty", p.frequency_penalty, "a number");
  std::unordered_set<TokenId> banned;
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0 || token >= vocabulary) return wrong("a token of logit_bias", token, fmt::format("0 to {}", vocabulary - 1).c_str());
    if (std::isnan(bias) || bias == infinity) return wrong("a logit_bias", bias, "a number, or -inf");
    if (bias == -infinity) banned.insert(token);
  }
  if (std::ssize(banned) == vocabulary) return "logit_bias bans every token; expected one that is left";
  return {};
}

SamplerState::SamplerState(const SamplingParams& params, std::span<const TokenId> prompt)
    : seed_(params.seed ? *params.seed : (std::uint64_t{std::random_device{}()} << 32 | std::random_device{}())),
      counts_tokens_(params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0) {
  if (!counts_tokens_) return;
  for (const TokenId token : prompt) counts_.try_emplace(token, 0);
}

void SamplerState::accept(TokenId token) {
  if (counts_tokens_) ++counts_[token];
}

Choice Sampler::choose(std::span<float> logits, const SamplingParams& params, const SamplerState& state, std::int64_t position,
                       int logprobs) {
  Choice choice;
  float normalizer = 0;
  if (logprobs >= 0) {
    normalizer = log_normalizer(logits);
    if (logprobs > 0) keep_best(logits, std::min<int>(logprobs, static_cast<int>(logits.size())));
    else kept_.clear();
    for (const Candidate& c : kept_) choice.top.push_back({c.token, c.logit - normalizer});
  }
  adjust(logits, params, state);
  if (std::isinf(1 / params.temperature)) {  // 0, or too small to divide by
    const float largest = largest_of(logits);
    choice.token = std::isfinite(largest) ? first_with(logits, largest) : -1;
  } else {
    choice.token = draw(logits, params, uniform_of(state.seed(), static_cast<std::uint64_t>(position)));
  }
  if (logprobs >= 0 && choice.token >= 0) choice.logprob = original(logits, choice.token) - normalizer;
  return choice;
}

void Sampler::adjust(std::span<float> logits, const SamplingParams& params, const SamplerState& state) {
  originals_.clear();
  for (const auto& [token, bias] : params.logit_bias) {
    originals_.try_emplace(token, logits[token]);
    logits[token] += bias;
  }
  for (const auto& [token, count] : state.counts()) {
    float& logit = logits[token];
    originals_.try_emplace(token, logit);
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count > 0) logit -= params.presence_penalty + static_cast<float>(count) * params.frequency_penalty;
  }
}

float Sampler::original(std::span<const float> logits, TokenId token) const noexcept {
  const auto found = originals_.find(token);
  return found == originals_.end() ? logits[token] : found->second;
}

TokenId Sampler::draw(std::span<const float> logits, const SamplingParams& params, double uniform) {
  const float largest = largest_of(logits);
  if (!std::isfinite(largest)) return -1;
  const bool few = params.top_k > 0 && params.top_k < std::ssize(logits);
  if (!few && params.top_p == 1) return draw_from_all(logits, params, largest, uniform);

  if (few) keep_best(logits, params.top_k);
  else keep_nucleus(logits, params, largest);

  std::size_t count = kept_.size();
  weights_.resize(count);
  for (std::size_t i = 0; i < count; ++i) weights_[i] = kept_[i].logit;
  kernels::softmax_weights(weights_.data(), std::ssize(weights_), largest, 1 / params.temperature, weights_.data());
  if (few && params.top_p < 1) {  // the shortest run of the best whose weights reach top_p of all
    const double enough = params.top_p * sum_of(weights_);
    double sum = 0;
    for (count = 0; count < weights_.size() && sum < enough; ++count) sum += weights_[count];
  }
  while (count > 1 && (weights_[count - 1] == 0 || weights_[count - 1] < params.min_p)) --count;

  const double target = uniform * sum_of(std::span(weights_).first(count));
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if ((sum += weights_[i]) > target) return kept_[i].token;
  }
  return kept_[count - 1].token;
}

TokenId Sampler::draw_from_all(std::span<const float> logits, const SamplingParams& params, float largest, double uniform) {
  weights_.resize(logits.size());
  double all = kernels::softmax_weights(logits.data(), std::ssize(logits), largest, 1 / params.temperature, weights_.data());
  if (params.min_p > 0) {
    for (float& weight : weights_) weight = weight < params.min_p ? 0.0f : weight;
    all = sum_of(weights_);
  }
  constexpr std::size_t block = 1024;
  double left = uniform * all;
  TokenId last = first_with(logits, largest);
  for (std::size_t begin = 0; begin < weights_.size(); begin += block) {
    const std::span<const float> part = std::span(weights_).subspan(begin, std::min(block, weights_.size() - begin));
    const double sum = sum_of(part);
    if (left >= sum) {
      left -= sum;
      continue;
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      if (part[i] == 0) continue;
      last = static_cast<TokenId>(begin + i);
      if ((left -= part[i]) < 0) return last;
    }
    return last;  // rounding took the last sliver
  }
  return last;
}

// The `count` largest logits, best first. Most of a row is passed over a block at a time.
void Sampler::keep_best(std::span<const float> logits, int count) {
  constexpr std::size_t block = 64;
  const auto better = [](const Candidate& a, const Candidate& b) { return a.logit > b.logit || (a.logit == b.logit && a.token < b.token); };
  kept_.clear();  // a heap whose front is the worst
  for (std::size_t begin = 0; begin < logits.size(); begin += block) {
    const auto part = logits.subspan(begin, std::min(block, logits.size() - begin));
    if (std::ssize(kept_) == count && largest_of(part) <= kept_.front().logit) continue;
    for (std::size_t i = 0; i < part.size(); ++i) {
      const Candidate candidate{part[i], static_cast<TokenId>(begin + i)};
      if (std::ssize(kept_) == count) {
        if (!better(candidate, kept_.front())) continue;
        std::pop_heap(kept_.begin(), kept_.end(), better);
        kept_.pop_back();
      }
      kept_.push_back(candidate);
      std::push_heap(kept_.begin(), kept_.end(), better);
    }
  }
  std::sort_heap(kept_.begin(), kept_.end(), better);
}

// The most likely tokens that together reach top_p: of those above some weight, once these reach it, the first few. Tokens
// below (1 - top_p) / size of all are never needed: together they weigh less than 1 - top_p.
void Sampler::keep_nucleus(std::span<const float> logits, const SamplingParams& params, float largest) {
  weights_.resize(logits.size());
  const double all = kernels::softmax_weights(logits.data(), std::ssize(logits), largest, 1 / params.temperature, weights_.data());
  const double enough = params.top_p * all;
  const auto lowest = static_cast<float>((1 - static_cast<double>(params.top_p)) * all / static_cast<double>(logits.size()) * 0.999);
  double reached = 0;
  for (float least = 1.0f / 16; reached < enough; least /= 16) {
    kept_.clear();
    reached = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (weights_[i] < std::max(least, lowest)) continue;
      kept_.push_back({logits[i], static_cast<TokenId>(i)});
      reached += weights_[i];
    }
    if (least <= lowest) break;
  }
  std::sort(kept_.begin(), kept_.end(),
            [](const Candidate& a, const Candidate& b) { return a.logit > b.logit || (a.logit == b.logit && a.token < b.token); });
  double sum = 0;
  std::size_t count = 0;
  while (count < kept_.size() && sum < enough) sum += weights_[kept_[count++].token];
  kept_.resize(std::max<std::size_t>(1, count));
}

float log_normalizer(std::span<const float> logits) noexcept {
  const float largest = largest_of(logits);
  const double sum = kernels::softmax_weights(logits.data(), std::ssize(logits), largest, 1, nullptr);
  return largest + static_cast<float>(std::log(sum));
}

double uniform_of(std::uint64_t seed, std::uint64_t position) noexcept {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32), 0, 0};
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    const std::uint64_t a = std::uint64_t{0xd2511f53u} * c[0], b = std::uint64_t{0xcd9e8d57u} * c[2];
    const std::uint32_t next[4] = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
                                   static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
    std::copy_n(next, 4, c);
  }
  return static_cast<double>((std::uint64_t{c[0]} << 32 | c[1]) >> 11) * 0x1p-53;
}

}  // namespace lmkit
