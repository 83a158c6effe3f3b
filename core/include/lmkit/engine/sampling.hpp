// SPDX-License-Identifier: Apache-2.0
//
// SamplingParams: how the next token is chosen from the logits. Each default does nothing but draw from the model's
// distribution; temperature 0 is greedy. sampler.hpp says in which order the parts apply.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace lmkit {

struct SamplingParams {
  float temperature = 1.0f;         // >= 0; 0: always the most likely token
  int top_k = 0;                    // keep the k most likely; 0: all
  float top_p = 1.0f;               // (0, 1]: keep the most likely tokens that together reach p
  float min_p = 0.0f;               // [0, 1): drop tokens less likely than min_p times the most likely one
  float repetition_penalty = 1.0f;  // > 0: divides positive, multiplies negative logits of tokens in prompt or answer
  float presence_penalty = 0.0f;    // subtracted once from tokens of the answer
  float frequency_penalty = 0.0f;   // subtracted as often as a token occurs in the answer
  std::vector<std::pair<TokenId, float>> logit_bias{};  // added to these tokens' logits; -inf: never this token
  std::optional<std::uint64_t> seed{};  // same seed, same text, whatever else is in the batch; none: a fresh one
};

}  // namespace lmkit
