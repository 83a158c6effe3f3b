// SPDX-License-Identifier: Apache-2.0
//
// Engine: takes requests, gives events. One call of step() runs one batch through the model.
//
// Used by one thread at a time; start_service() gives it a thread of its own.
#pragma once

#include <lmkit/engine/block_pool.hpp>
#include <lmkit/engine/executor.hpp>
#include <lmkit/engine/memory_plan.hpp>
#include <lmkit/engine/scheduler.hpp>
#include <lmkit/engine/sequence.hpp>
#include <lmkit/engine/service.hpp>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace lmkit {

class Engine {
 public:
  // Sees every step's plan and rank 0's logits (logit rows, vocabulary) before the sampler does. For tests and tools.
  using LogitsTap = std::function<void(const StepPlan&, std::span<const float>)>;

  Engine(std::unique_ptr<Executor> executor, std::shared_ptr<const Tokenizer> tokenizer, Decide decide, const StepLimits& limits,
         const Ledger& ledger, const ModelConfig& config);

  RequestId submit(Request request);
  // id: greater than every id before; when: it was submitted to whoever passes it on
  void submit(RequestId id, Request request, Sequence::Clock::time_point when = Sequence::Clock::now());
  void cancel(RequestId id) noexcept;

  // schedule -> forward -> sample -> accept -> deliver. Does nothing without work. Where the device runs on by itself, the
  // step that is started is delivered by the next call, which meanwhile has started another.
  void step() noexcept;
  RequestId last_id() const noexcept { return last_id_; }
  bool has_work() const noexcept { return !sequences_.empty() || !flights_.empty(); }

  // The events since the last call.
  std::vector<Event> take_events() noexcept { return std::exchange(events_, {}); }
  Stats stats() const noexcept;

  void tap_logits(LogitsTap tap) { tap_ = std::move(tap); }
  Executor& executor() noexcept { return *executor_; }
  const BlockPool& blocks() const noexcept { return pool_; }

 private:
  // A row of a step's logits and what it is for.
  struct Row {
    RequestId sequence;
    int position;  // of the token that the row predicts
    bool draws;    // else: scores a prompt token that is known
  };

  // A step that was started. Its sequences may be gone when it is finished.
  struct Flight {
    std::vector<RequestId> sequences;
    std::vector<Row> rows;
    std::int64_t prompt_tokens = 0;
    Sequence::Clock::time_point start;
    bool may_run_on = false;  // the next step can be put together before this one's draws are known
  };

  std::string problem_of(const Request& request) const;
  bool start_step() noexcept;
  void finish_step() noexcept;
  void add_rows(const Batch& batch, Flight& flight);
  void accept(const Row& row, Choice&& choice) noexcept;
  void fail(const Flight& flight) noexcept;
  void count(const Flight& flight) noexcept;
  Sequence* find(RequestId id) noexcept;
  void end(Sequence& sequence, Finish finish, Event event, std::string error = {});
  bool ends_answer(const Sequence& sequence, TokenId token) const noexcept;

  std::unique_ptr<Executor> executor_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  int vocabulary_;
  int context_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;  // after the pool: their leases end first
  RequestId last_id_ = 0;

  StepPlan plan_;
  std::vector<Draw> draws_;      // one for each row of the plan
  std::deque<Flight> flights_;   // oldest first
  Sequence::Clock::time_point last_finish_{};
  std::vector<Choice> choices_;
  LogitsTap tap_;
  std::vector<Event> events_;
  Stats stats_;
};

// Runs the engine on a thread until the service ends; requests that are unfinished then get no more events.
std::unique_ptr<Service> start_service(Engine& engine);

}  // namespace lmkit
