// SPDX-License-Identifier: Apache-2.0
//
// The sampler: from one row of logits to the next token. The parts of SamplingParams apply in this order, as in Hugging
// Face transformers and vLLM:
//     logit bias -> repetition, presence, frequency penalty -> temperature -> top-k -> top-p -> min-p -> draw
// top-p counts probabilities among what top-k left; min-p compares with the most likely token. Equal logits go by the
// lower token id. The draw's random number is Philox(seed, position of the token), so a text depends on its own seed
// alone: not on the batch, and not on whether the sequence was preempted and read anew.
//
// Cost: a few passes over the row; what is sorted is what top-k or top-p keep.
#pragma once

#include <lmkit/engine/sampling.hpp>
#include <lmkit/engine/service.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace lmkit {

// Empty, or what is wrong with the parameters.
std::string problem_of(const SamplingParams& params, int vocabulary);

// What sampling remembers of a sequence.
class SamplerState {
 public:
  SamplerState(const SamplingParams& params, std::span<const TokenId> prompt);

  void accept(TokenId token);

  std::uint64_t seed() const noexcept { return seed_; }
  // Occurrences in the answer of every token seen in prompt or answer; empty when no penalty needs them.
  const std::unordered_map<TokenId, int>& counts() const noexcept { return counts_; }

 private:
  std::uint64_t seed_;
  bool counts_tokens_;
  std::unordered_map<TokenId, int> counts_;
};

struct Choice {
  TokenId token = -1;  // -1: the logits are not numbers
  float logprob = 0;
  std::vector<TokenLogprob> top;
};

// Scratch that may be used for row after row.
class Sampler {
 public:
  // Changes the logits. logprobs as in Request. position: the index the token will have in its sequence.
  Choice choose(std::span<float> logits, const SamplingParams& params, const SamplerState& state, std::int64_t position, int logprobs);

 private:
  struct Candidate {
    float logit;
    TokenId token;
  };

  void adjust(std::span<float> logits, const SamplingParams& params, const SamplerState& state);
  TokenId draw(std::span<const float> logits, const SamplingParams& params, double uniform);
  TokenId draw_from_all(std::span<const float> logits, const SamplingParams& params, float largest, double uniform);
  void keep_best(std::span<const float> logits, int count);
  void keep_nucleus(std::span<const float> logits, const SamplingParams& params, float largest);
  float original(std::span<const float> logits, TokenId token) const noexcept;

  std::vector<Candidate> kept_;  // best first
  std::vector<float> weights_;   // exp((logit - largest) / temperature)
  std::unordered_map<TokenId, float> originals_;  // logits before they were adjusted
};

// log sum exp(logits): what turns a logit into a log probability. Not a number if the logits are not.
float log_normalizer(std::span<const float> logits) noexcept;

// Philox4x32-10 (Salmon et al. 2011) as a number in [0, 1) with 53 random bits.
double uniform_of(std::uint64_t seed, std::uint64_t position) noexcept;

}  // namespace lmkit
