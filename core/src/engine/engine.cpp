// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/engine.hpp>
#include <lmkit/text/utf8.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace lmkit {
namespace {

using Clock = Sequence::Clock;

double seconds(Clock::duration duration) noexcept { return std::chrono::duration<double>(duration).count(); }

}  // namespace

Engine::Engine(std::unique_ptr<Executor> executor, std::shared_ptr<const Tokenizer> tokenizer, Decide decide, const StepLimits& limits,
               const Ledger& ledger, const ModelConfig& config)
    : executor_(std::move(executor)),
      tokenizer_(std::move(tokenizer)),
      vocabulary_(config.vocabulary),
      context_(ledger.session_len),
      pool_(ledger.blocks),
      scheduler_(pool_, limits, std::move(decide)) {
  draws_.reserve(limits.logit_rows);
  choices_.reserve(limits.logit_rows);
}

// --- the step ----------------------------------------------------------------------------------------------------------

void Engine::step() noexcept {
  const bool started = start_step();
  while (!flights_.empty() && !(started && flights_.size() == 1 && flights_.front().may_run_on)) finish_step();
}

// schedule -> forward -> sample. False if no sequence can go on.
bool Engine::start_step() noexcept {
  const Batch& batch = scheduler_.schedule();
  if (batch.empty()) return false;
  Flight& flight = flights_.emplace_back();
  flight.start = Clock::now();
  plan_.number = stats_.steps++;
  scheduler_.write(plan_);
  add_rows(batch, flight);
  executor_->start(plan_, draws_);
  if (tap_) tap_(plan_, executor_->logits());
  scheduler_.advance();
  return true;
}

// What each row of the step's logits is for; a token that will be drawn takes its place at once.
void Engine::add_rows(const Batch& batch, Flight& flight) {
  draws_.clear();
  const bool on_host = static_cast<bool>(tap_);
  for (const BatchEntry& entry : batch) {
    Sequence& sequence = *entry.sequence;
    if (sequence.started == Clock::time_point{}) sequence.started = flight.start;
    if (entry.tokens > 1 || sequence.size() == sequence.prompt_tokens) flight.prompt_tokens += entry.tokens;
    flight.sequences.push_back(sequence.id);
    const int scored = entry.rows - (entry.reaches_end() ? 1 : 0);
    for (int i = 0; i < scored; ++i) {
      const int position = static_cast<int>(sequence.prompt_logprobs.size()) + 1 + i;
      draws_.push_back({.position = position, .known = sequence.tokens[position], .on_host = on_host});
      flight.rows.push_back({sequence.id, position, false});
    }
    if (entry.reaches_end()) {
      draws_.push_back({&sequence.request.sampling, &sequence.sampling, sequence.size(), sequence.request.logprobs, -1, on_host});
      flight.rows.push_back({sequence.id, sequence.size(), true});
    }
  }
  flight.may_run_on = executor_->overlaps() && std::ranges::all_of(draws_, &Draw::plain);
  // after the plan was written: a pending token has been read by no step yet
  for (std::size_t row = 0; row < flight.rows.size(); ++row) {
    Sequence& sequence = *find(flight.rows[row].sequence);
    if (!flight.rows[row].draws || sequence.size() >= sequence.most_tokens) continue;
    sequence.tokens.push_back(-1 - static_cast<TokenId>(row));
    ++sequence.pending;
  }
}

// accept -> deliver.
void Engine::finish_step() noexcept {
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  if (executor_->finish(choices_) != Status::ok) return fail(flight);
  stats_.device_idle_seconds = executor_->idle_seconds();
  count(flight);
  for (std::size_t i = 0; i < flight.rows.size(); ++i) accept(flight.rows[i], std::move(choices_[i]));
}

Sequence* Engine::find(RequestId id) noexcept {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

void Engine::accept(const Row& row, Choice&& choice) noexcept {
  Sequence* const found = find(row.sequence);
  if (!found) return;  // it ended while the step ran
  Sequence& sequence = *found;
  if (!row.draws) return sequence.prompt_logprobs.push_back(choice.logprob);

  Event event{.id = sequence.id};
  if (sequence.generated() == 0) event.prompt_logprobs = sequence.prompt_logprobs;
  if (row.position >= sequence.most_tokens) return end(sequence, Finish::length, std::move(event));
  if (choice.token < 0) return end(sequence, Finish::error, std::move(event), "the model's logits are not numbers");

  if (sequence.generated() == 0) sequence.first_token = Clock::now();
  sequence.tokens[row.position] = choice.token;
  --sequence.pending;
  sequence.sampling.accept(choice.token);
  ++stats_.generated_tokens;

  event.token = choice.token;
  event.logprob = choice.logprob;
  event.top = std::move(choice.top);
  if (ends_answer(sequence, choice.token)) return end(sequence, Finish::stop, std::move(event));
  event.text = sequence.stop.push(sequence.detokenizer.push(choice.token));
  if (sequence.stop.matched()) return end(sequence, Finish::stop, std::move(event));
  if (row.position + 1 == sequence.most_tokens) return end(sequence, Finish::length, std::move(event));
  events_.push_back(std::move(event));
}

bool Engine::ends_answer(const Sequence& sequence, TokenId token) const noexcept {
  const auto& own = sequence.request.stop_tokens;
  return (!sequence.request.ignore_eos && tokenizer_->is_end_of_turn(token)) || std::find(own.begin(), own.end(), token) != own.end();
}

// The last event of a sequence, which is gone afterwards.
void Engine::end(Sequence& sequence, Finish finish, Event event, std::string error) {
  const auto now = Clock::now();
  const auto since_submit = [&](Clock::time_point time) { return time == Clock::time_point{} ? 0.0 : seconds(time - sequence.submitted); };
  if (!sequence.stop.matched()) {
    event.text += sequence.stop.push(sequence.detokenizer.finish());
    event.text += sequence.stop.flush();
  }
  event.finish = finish;
  event.error = std::move(error);
  event.usage = {.prompt_tokens = sequence.prompt_tokens,
                 .generated_tokens = sequence.generated(),
                 .preemptions = sequence.preemptions,
                 .queued = since_submit(sequence.started),
                 .first_token = since_submit(sequence.first_token),
                 .total = since_submit(now)};
  events_.push_back(std::move(event));
  ++stats_.finished;
  scheduler_.remove(sequence);
  sequences_.erase(sequence.id);
}

// The step's numbers are worthless: its sequences end, the others go on.
void Engine::fail(const Flight& flight) noexcept {
  for (const RequestId id : flight.sequences) {
    if (Sequence* const sequence = find(id)) end(*sequence, Finish::error, {.id = id}, executor_->failure());
  }
}

// Steps that overlap share their time: a step's begins where the one before ended.
void Engine::count(const Flight& flight) noexcept {
  const auto now = Clock::now();
  const double elapsed = seconds(now - std::max(flight.start, last_finish_));
  last_finish_ = now;
  stats_.prompt_tokens += flight.prompt_tokens;
  (flight.prompt_tokens > 0 ? stats_.prompt_seconds : stats_.decode_seconds) += elapsed;
}

// --- requests ----------------------------------------------------------------------------------------------------------

RequestId Engine::submit(Request request) {
  const RequestId id = last_id_ + 1;
  submit(id, std::move(request));
  return id;
}

void Engine::submit(RequestId id, Request request, Clock::time_point when) {
  last_id_ = id;
  if (std::string problem = problem_of(request); !problem.empty()) {
    ++stats_.finished;
    events_.push_back({.id = id, .finish = Finish::error, .error = std::move(problem)});
    return;
  }
  auto sequence = std::make_unique<Sequence>(id, std::move(request), *tokenizer_);
  const int room = context_ - sequence->size();
  const int asked = sequence->request.max_tokens;
  sequence->most_tokens = sequence->size() + (asked < 0 ? room : std::min(room, asked));
  sequence->submitted = when;
  scheduler_.add(*sequence);
  sequences_.emplace(id, std::move(sequence));
}

void Engine::cancel(RequestId id) noexcept {
  if (Sequence* const sequence = find(id)) end(*sequence, Finish::cancelled, {.id = id});
}

// Empty, or why the request cannot be run.
std::string Engine::problem_of(const Request& request) const {
  const auto invalid = [&](TokenId token) { return token < 0 || token >= vocabulary_; };
  const auto bad_token = [&](const char* where, TokenId token) {
    return fmt::format("token {} in {} is not in the vocabulary of {}", token, where, vocabulary_);
  };
  if (request.prompt.empty()) return "the prompt is empty; expected at least one token";
  const auto room = static_cast<std::size_t>(request.max_tokens == 0 ? context_ : context_ - 1);
  if (request.prompt.size() > room) {
    return fmt::format("the prompt has {} tokens; expected at most {} (the context is {})", request.prompt.size(), room, context_);
  }
  for (const TokenId token : request.prompt) {
    if (invalid(token)) return bad_token("the prompt", token);
  }
  for (const TokenId token : request.stop_tokens) {
    if (invalid(token)) return bad_token("stop_tokens", token);
  }
  if (request.max_tokens < -1) return fmt::format("max_tokens is {}; expected a number from 0, or -1", request.max_tokens);
  if (request.logprobs < -1 || request.logprobs > Request::most_logprobs) {
    return fmt::format("logprobs is {}; expected -1 to {}", request.logprobs, Request::most_logprobs);
  }
  if (request.stop.size() > Request::most_stop_strings) {
    return fmt::format("there are {} stop strings; expected at most {}", request.stop.size(), Request::most_stop_strings);
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > Request::longest_stop_string || !is_valid_utf8(stop)) {
      return fmt::format("a stop string has {} bytes; expected 1 to {} bytes of UTF-8", stop.size(), Request::longest_stop_string);
    }
  }
  return lmkit::problem_of(request.sampling, vocabulary_);
}

Stats Engine::stats() const noexcept {
  Stats stats = stats_;
  stats.running = scheduler_.running();
  stats.waiting = scheduler_.waiting();
  stats.blocks_total = pool_.total();
  stats.blocks_free = pool_.free();
  stats.blocks_held = pool_.held();
  stats.blocks_cached = pool_.cached();
  stats.block_tokens = block_tokens;
  stats.preemptions = scheduler_.preemptions();
  return stats;
}

}  // namespace lmkit
