// SPDX-License-Identifier: Apache-2.0
//
// Sequence: a request on its way through the engine: its tokens, the blocks that hold their keys and values, and how
// far each of the two has come.
#pragma once

#include <lmkit/engine/block_pool.hpp>
#include <lmkit/engine/sampler.hpp>
#include <lmkit/engine/service.hpp>
#include <lmkit/engine/stop_matcher.hpp>
#include <lmkit/text/detokenizer.hpp>

#include <chrono>
#include <list>
#include <optional>
#include <vector>

namespace lmkit {

struct Sequence {
  using Clock = std::chrono::steady_clock;

  Sequence(RequestId request_id, Request&& asked, const Tokenizer& tokenizer)
      : id(request_id),
        request(std::move(asked)),
        tokens(std::move(request.prompt)),
        prompt_tokens(static_cast<int>(tokens.size())),
        sampling(request.sampling, tokens),
        detokenizer(tokenizer),
        stop(request.stop) {}

  int size() const noexcept { return static_cast<int>(tokens.size()); }
  int generated() const noexcept { return size() - pending - prompt_tokens; }
  int missing() const noexcept { return size() - computed; }  // tokens that the model has not read
  bool reads_prompt() const noexcept { return missing() > 1; }

  RequestId id;  // grows with every request: also the order of arrival
  Request request;
  std::vector<TokenId> tokens;  // prompt, then answer; the pending ones as in a StepPlan
  int prompt_tokens;
  int most_tokens = 0;  // tokens.size() at which the answer is full
  int pending = 0;      // tokens at the end that steps in flight will draw

  // Nothing is left to do but wait for its last tokens.
  bool awaits_its_end() const noexcept { return pending > 0 && size() >= most_tokens; }

  // --- the scheduler's
  int computed = 0;  // leading tokens whose keys and values are in blocks
  std::vector<BlockLease> blocks;  // of tokens from the first on
  int passed = 0;                  // leading blocks that were given back: nobody reads them again
  int held() const noexcept { return static_cast<int>(blocks.size()) - passed; }
  bool running = false;
  std::list<Sequence*>::iterator place;  // in the queue, while not running
  int preemptions = 0;

  // --- the sampler's and the caller's
  SamplerState sampling;
  std::vector<float> prompt_logprobs;  // of tokens 1, 2, … as far as they are known
  Detokenizer detokenizer;
  StopMatcher stop;
  Clock::time_point submitted{}, started{}, first_token{};

  bool scores_prompt() const noexcept { return request.prompt_logprobs && static_cast<int>(prompt_logprobs.size()) < prompt_tokens - 1; }
};

}  // namespace lmkit
