// SPDX-License-Identifier: Apache-2.0
//
// PoolSimulation: a pool of blocks and sequences that grow in it, as the engine would run them, to test a policy with numbers.
//
// Each round every running sequence asks for blocks, oldest first, then the queue in order of arrival. Who has all it needs
// leaves after a few rounds. A preempted sequence starts anew. If nobody may move, the oldest does, and the latest make room:
// that is the engine's rule, and `forced` counts how often it was needed.
#pragma once

#include <lmkit/concepts/allocator_policy.hpp>

#include <algorithm>
#include <deque>
#include <functional>
#include <list>
#include <vector>

struct SimulatedSequence {
  std::int64_t id = 0;  // and arrival
  int needs = 0;        // blocks, when it is complete
  int step = 1;         // blocks it asks for at a time
  int rounds_left = 0;  // after it is complete
  int held = 0;
  int preempted = 0;
};

template <lmkit::AllocatorPolicy A>
class PoolSimulation {
 public:
  PoolSimulation(const A& policy, int blocks) : policy_(policy), total_(blocks), free_(blocks) {}

  // Called with the state in which a decision was taken.
  std::function<void(const lmkit::PoolState&, const lmkit::Demand&, const lmkit::Decision&)> observe = [](auto&...) {};

  void arrive(SimulatedSequence sequence) { waiting_.push_back(sequence); }
  bool idle() const { return waiting_.empty() && running_.empty(); }
  const SimulatedSequence& oldest() const {
    return running_.empty() || (!waiting_.empty() && waiting_.front().id < running_.front().id) ? waiting_.front() : running_.front();
  }
  int free() const { return free_; }
  int preemptions = 0, forced = 0, finished = 0;

  void round() {
    bool moved = false;
    std::vector<std::int64_t> ids;
    for (const auto& sequence : running_) ids.push_back(sequence.id);
    for (const std::int64_t id : ids) {
      const auto sequence = find(running_, id);
      if (sequence == running_.end()) continue;  // preempted in this round
      if (sequence->held == sequence->needs) {
        moved = true;
        if (--sequence->rounds_left <= 0) leave(sequence);
      } else {
        moved |= grow(*sequence, true);
      }
    }
    while (!waiting_.empty()) {
      SimulatedSequence first = waiting_.front();
      waiting_.pop_front();
      if (!grow(first, false)) {
        waiting_.push_front(first);
        break;
      }
      start(first);
      moved = true;
    }
    if (!moved && !idle()) force();
  }

 private:
  using Sequences = std::list<SimulatedSequence>;

  static typename Sequences::iterator find(Sequences& in, std::int64_t id) {
    return std::find_if(in.begin(), in.end(), [&](const auto& s) { return s.id == id; });
  }

  bool grow(SimulatedSequence& sequence, bool runs) {
    const int blocks = std::min(sequence.step, sequence.needs - sequence.held);
    for (;;) {
      std::vector<lmkit::Holder> holders;
      for (const auto& s : running_) holders.push_back({s.id, s.id, s.held, 0});
      const lmkit::PoolState state{.struct_size = sizeof(lmkit::PoolState), .total_blocks = total_, .free_blocks = free_, .cached_blocks = 0,
                                   .held_blocks = total_ - free_, .waiting = static_cast<std::int32_t>(waiting_.size()),
                                   .holders = holders.data(), .holder_count = static_cast<std::int32_t>(holders.size())};
      const lmkit::Demand demand{.struct_size = sizeof(lmkit::Demand), .blocks = blocks, .sequence = {sequence.id, sequence.id, sequence.held, 0}};
      const lmkit::Decision decision = policy_.decide(state, demand);
      observe(state, demand, decision);
      if (decision.verdict == LMKIT_GRANT) {
        sequence.held += blocks;
        free_ -= blocks;
        return true;
      }
      if (decision.verdict == LMKIT_WAIT) return false;
      const auto victim = find(running_, decision.victim);
      if (victim == running_.end()) return false;
      const bool itself = runs && victim->id == sequence.id;
      preempt(victim);
      if (itself) return false;
    }
  }

  void start(const SimulatedSequence& sequence) {
    running_.insert(std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.id > sequence.id; }), sequence);
  }

  void preempt(typename Sequences::iterator victim) {
    ++preemptions;
    free_ += victim->held;
    victim->held = 0;
    ++victim->preempted;
    const auto behind = std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& s) { return s.id > victim->id; });
    waiting_.insert(behind, *victim);
    running_.erase(victim);
  }

  void leave(typename Sequences::iterator sequence) {
    free_ += sequence->held;
    running_.erase(sequence);
    ++finished;
  }

  void force() {
    ++forced;
    if (running_.empty() || (!waiting_.empty() && waiting_.front().id < running_.front().id)) {
      SimulatedSequence first = waiting_.front();
      waiting_.pop_front();
      start(first);
    }
    SimulatedSequence& oldest = running_.front();
    const int blocks = std::min(oldest.step, oldest.needs - oldest.held);
    while (free_ < blocks) preempt(std::prev(running_.end()));
    oldest.held += blocks;
    free_ -= blocks;
  }

  const A& policy_;
  int total_, free_;
  Sequences running_;
  std::deque<SimulatedSequence> waiting_;
};
