// SPDX-License-Identifier: Apache-2.0
//
// Draw: what one row of a step's logits is for: the next token of a sequence, or the score of a token that is known.
#pragma once

#include <lmkit/engine/sampler.hpp>

#include <cstdint>
#include <span>

namespace lmkit {

struct Draw {
  const SamplingParams* params = nullptr;  // these two live until the step has been collected,
  const SamplerState* state = nullptr;     // unless the draw is plain()
  std::int64_t position = 0;               // of the token that the row predicts
  int logprobs = -1;                       // as in Request
  TokenId known = -1;                      // >= 0: this token is scored, nothing is drawn
  bool on_host = false;                    // the host is to see the logits as they are

  // Whether tokens drawn before, but not known to the host yet, cannot matter to it.
  bool plain() const noexcept {
    return !on_host && logprobs <= 0 && known < 0 && state->counts().empty() && params->logit_bias.empty();
  }
};

// On the host; changes the logits. (vocabulary)
inline Choice choose(Sampler& sampler, std::span<float> logits, const Draw& draw) {
  if (draw.known < 0) return sampler.choose(logits, *draw.params, *draw.state, draw.position, draw.logprobs);
  return {.token = draw.known, .logprob = logits[draw.known] - log_normalizer(logits), .top = {}};
}

}  // namespace lmkit
