// SPDX-License-Identifier: Apache-2.0
//
// Service: everything a front end knows of the engine. Its messages are plain structs, so that the engine may live in
// this process or in another one.
//
// A request is answered by a stream of events, one for each token, of which the last has a finish reason. A bad
// request is answered by a single event with an error. Every submitted request gets exactly one last event, unless the service ends before.
#pragma once

#include <lmkit/engine/sampling.hpp>
#include <lmkit/text/tokenizer_data.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lmkit {

using RequestId = std::int64_t;

struct Request {
  // Stop strings are looked for at every token.
  static constexpr std::size_t most_stop_strings = 16, longest_stop_string = 1024;  // bytes
  static constexpr int most_logprobs = 100;

  std::vector<TokenId> prompt;  // at least one token, and fewer than the context
  SamplingParams sampling;
  int max_tokens = -1;                // of the answer; 0: read the prompt only; -1: as many as the context takes
  std::vector<std::string> stop;      // ends the answer; not part of its text
  std::vector<TokenId> stop_tokens;   // besides the model's own end tokens
  bool ignore_eos = false;            // the model's own end tokens do not end the answer
  int logprobs = -1;                  // -1: none; 0: of the chosen token; n: and of the n most likely ones
  bool prompt_logprobs = false;       // log p of every prompt token but the first (perplexity)
};

enum class Finish : std::uint8_t {
  none,       // more will follow
  stop,       // an end token or a stop string
  length,     // max_tokens, or the context is full
  cancelled,  // by cancel()
  error,      // see Event::error
};

struct TokenLogprob {
  TokenId token = -1;
  float logprob = 0;  // natural logarithm, of the model's own distribution (temperature 1, nothing dropped)
};

// Filled in the last event. Times in seconds.
struct Usage {
  int prompt_tokens = 0;
  int generated_tokens = 0;
  int preemptions = 0;
  double queued = 0;       // from submit to the first step
  double first_token = 0;  // from submit to the first token
  double total = 0;        // from submit to the end
};

struct Event {
  RequestId id = 0;
  TokenId token = -1;   // -1: none (an end without a token)
  std::string text{};   // valid UTF-8; may be empty while a character or a stop string is incomplete
  float logprob = 0;    // of token, when asked for
  std::vector<TokenLogprob> top{};       // the most likely tokens, best first, when asked for
  std::vector<float> prompt_logprobs{};  // (prompt tokens - 1), with the event that follows the prompt, when asked for
  Finish finish = Finish::none;
  std::string error{};
  Usage usage{};
};

struct Stats {
  int running = 0;
  int waiting = 0;
  int blocks_total = 0, blocks_free = 0, blocks_held = 0, blocks_cached = 0;
  int block_tokens = 0;
  std::int64_t steps = 0;
  std::int64_t prompt_tokens = 0;     // run through the model, recomputed ones included
  std::int64_t generated_tokens = 0;
  std::int64_t preemptions = 0;
  std::int64_t finished = 0;   // requests, for whatever reason
  double prompt_seconds = 0;   // spent in steps that read prompts
  double decode_seconds = 0;   // spent in all other steps
  double device_idle_seconds = 0;  // between one step's kernels and the next one's, on a device that runs on by itself
};

// [any-thread]
class Service {
 public:
  virtual ~Service() = default;

  virtual RequestId submit(Request request) = 0;
  // Ends a request at the next step with Finish::cancelled; unknown or finished ids are ignored.
  virtual void cancel(RequestId id) = 0;
  // Takes the events that happened since the last call; waits up to `timeout` for the first one. Each event is given
  // to one caller.
  virtual std::vector<Event> wait(std::chrono::milliseconds timeout) = 0;
  virtual Stats stats() const = 0;
};

}  // namespace lmkit
