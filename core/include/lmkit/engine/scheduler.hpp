// SPDX-License-Identifier: Apache-2.0
//
// Scheduler: which sequences take part in the next step, and with how many tokens.
//
// First every running sequence that only needs its next token, then chunks of the prompts, oldest first, then the
// queue, strictly in order of arrival; until the step's tokens, rows of logits or sequences are used up. Before a
// sequence grows into a new block the AllocatorPolicy is asked; a preempted sequence gives all its blocks back and
// stands in the queue again, to be read anew. Where every layer has a window, blocks behind it are given back. If a
// policy lets nobody move, the oldest sequence does.
//
// Cost: O(1) for each running sequence and step; O(running) when one starts, ends or is preempted.
#pragma once

#include <lmkit/concepts/allocator_policy.hpp>
#include <lmkit/engine/block_pool.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/engine/sequence.hpp>
#include <lmkit/model/step_plan.hpp>

#include <functional>
#include <list>
#include <vector>

namespace lmkit {

// One sequence's part of a step: the tokens computed .. computed + tokens - 1.
struct BatchEntry {
  Sequence* sequence = nullptr;
  int tokens = 0;
  int rows = 0;       // of logits; the last is the next token's, if the chunk reaches the sequence's end
  bool reaches_end() const noexcept { return tokens == sequence->missing(); }
};

using Batch = std::vector<BatchEntry>;

using Decide = std::function<Decision(const PoolState&, const Demand&)>;  // must not throw

// [engine-thread]
class Scheduler {
 public:
  Scheduler(BlockPool& pool, const StepLimits& limits, Decide decide);

  void add(Sequence& sequence);              // to the queue's end
  void remove(Sequence& sequence) noexcept;  // wherever it is; its blocks are free at once

  // Empty only when there is no sequence. The entries' blocks are theirs.
  const Batch& schedule() noexcept;
  void write(StepPlan& plan) const noexcept;
  // The batch has been run: its tokens are in the blocks.
  void advance() noexcept;

  int running() const noexcept { return static_cast<int>(running_.size()); }
  int waiting() const noexcept { return static_cast<int>(waiting_.size()); }
  std::int64_t preemptions() const noexcept { return preemptions_; }

 private:
  bool try_schedule(Sequence& sequence) noexcept;
  void give_back_passed(Sequence& sequence) noexcept;
  bool get_blocks(Sequence& sequence, int count) noexcept;
  void take_blocks(Sequence& sequence, int count) noexcept;
  void start(Sequence& sequence) noexcept;
  void stop(Sequence& sequence) noexcept;     // running no more, blocks given back
  void preempt(Sequence& victim) noexcept;
  void let_the_oldest_move() noexcept;
  int chunk_of(const Sequence& sequence) const noexcept;
  int rows_of(const Sequence& sequence, int tokens) const noexcept;
  std::size_t index_of(const Sequence& sequence) const noexcept;

  BlockPool& pool_;
  StepLimits limits_;
  Decide decide_;
  std::list<Sequence*> waiting_;     // by arrival
  std::vector<Sequence*> running_;   // by arrival
  std::vector<Holder> holders_;      // the same sequences, as the policy sees them
  std::ptrdiff_t cursor_ = 0;        // the running sequence that is looked at
  Batch batch_;
  int tokens_left_ = 0;
  int rows_left_ = 0;
  std::int64_t preemptions_ = 0;
};

}  // namespace lmkit
