// SPDX-License-Identifier: Apache-2.0
//
// RankGroup: runs StepPlans on the ranks of this process. One rank runs on the engine's own thread; several run on a
// thread each, which takes a copy of the plan and does not start before all ranks hold a plan of the same hash.
#pragma once

#include <lmkit/engine/executor.hpp>
#include <lmkit/engine/rank.hpp>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <exception>
#include <memory>
#include <queue>
#include <thread>
#include <vector>

namespace lmkit {

// One thread for each member; every round runs the same job on all of them. [engine-thread]
class RankThreads {
 public:
  explicit RankThreads(int count);  // throws Error(runtime) if the system refuses a thread
  ~RankThreads();

  // Runs job(rank) on each rank's thread and waits for all. job must not throw.
  void run(const std::function<void(int)>& job) noexcept;

 private:
  void work(int rank) noexcept;
  void stop() noexcept;

  const std::function<void(int)>* job_ = nullptr;
  std::atomic<std::uint32_t> round_{0};
  std::atomic<int> busy_{0};
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

template <ParallelStrategy P, KvBackend K>
class RankGroup final : public Executor {
 public:
  // Throws the first rank's error once every rank has stopped; no rank joins before all have loaded.
  RankGroup(const ModelFile& model, std::shared_ptr<typename P::Group> group, const MakeKv<K>& make_kv,
            const kernels::OpenDevice& open_device, const StepLimits& limits, int blocks)
      : group_(std::move(group)), size_(group_->ranks().size), ranks_(size_), plans_(size_), hashes_(size_), outcomes_(size_), in_step_(size_) {
    if (size_ > 1) threads_ = std::make_unique<RankThreads>(size_);
    on_each([&](int r) { ranks_[r] = std::make_unique<Rank<P, K>>(model, *group_, r, make_kv, open_device, limits, blocks); });
    on_each([&](int r) { ranks_[r]->join(); });
  }

  ~RankGroup() override {
    run_on_all([&](int r) { ranks_[r]->leave(); });
  }

  void start(const StepPlan& plan, std::span<const Draw> draws) noexcept override {
    const std::uint64_t announced = size_ > 1 ? hash_of(plan) : 0;
    run_on_all([&](int r) { outcomes_[r] = size_ > 1 ? acknowledge_and_start(plan, draws, announced, r) : start_rank(plan, draws, r); });
    const auto failed = std::ranges::find_if(outcomes_, [](const Outcome& outcome) { return outcome.status != Status::ok; });
    started_.push(failed == outcomes_.end() ? Outcome() : *failed);
  }

  bool overlaps() const noexcept override { return ranks_[0]->overlaps(); }

  Status finish(std::vector<Choice>& choices) noexcept override {
    Outcome outcome = std::move(started_.front());
    started_.pop();
    const Status finished = ranks_[0]->finish(choices);
    if (outcome.status == Status::ok && finished != Status::ok) outcome = {finished, last_failure()};
    if (outcome.status != Status::ok) failure_ = std::move(outcome.reason);
    return outcome.status;
  }

  std::string failure() const override { return failure_.empty() ? "the step failed without a reason" : failure_; }
  double idle_seconds() const noexcept override { return ranks_[0]->idle_seconds(); }
  std::span<const float> logits() noexcept override { return ranks_[0]->logits(); }
  int ranks() const noexcept override { return size_; }
  kernels::Device& device(int rank) noexcept override { return ranks_[rank]->device(); }
  std::span<std::byte> kv_pool(int rank) noexcept override { return ranks_[rank]->kv_pool(); }
  std::int64_t allocated(int rank) const noexcept override { return ranks_[rank]->allocated(); }

 private:
  struct Outcome {
    Status status = Status::ok;
    std::string reason;
  };

  Outcome start_rank(const StepPlan& plan, std::span<const Draw> draws, int r) noexcept {
    const Status status = ranks_[r]->start(plan, draws);
    return {status, status == Status::ok ? std::string() : last_failure()};
  }

  Outcome acknowledge_and_start(const StepPlan& announced_plan, std::span<const Draw> draws, std::uint64_t announced, int r) noexcept {
    plans_[r] = announced_plan;
    hashes_[r] = hash_of(plans_[r]);
    in_step_.arrive_and_wait();
    for (const std::uint64_t hash : hashes_) {
      if (hash != announced) return {Status::internal_error, "the ranks do not agree on the step's plan"};
    }
    return start_rank(plans_[r], draws, r);
  }

  template <class Job>
  void run_on_all(Job&& job) noexcept {
    if (threads_) threads_->run(std::ref(job));
    else job(0);
  }

  // A job that may throw.
  template <class Job>
  void on_each(Job&& job) {
    std::vector<std::exception_ptr> errors(size_);
    run_on_all([&](int r) {
      try {
        job(r);
      } catch (...) {
        errors[r] = std::current_exception();
      }
    });
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  }

  std::shared_ptr<typename P::Group> group_;
  int size_;
  std::vector<std::unique_ptr<Rank<P, K>>> ranks_;
  std::vector<StepPlan> plans_;
  std::vector<std::uint64_t> hashes_;
  std::vector<Outcome> outcomes_;
  std::barrier<> in_step_;
  std::unique_ptr<RankThreads> threads_;
  std::queue<Outcome> started_;  // of the steps that are not finished
  std::string failure_;
};

}  // namespace lmkit
