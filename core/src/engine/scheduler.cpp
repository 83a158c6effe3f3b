// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/scheduler.hpp>

#include <algorithm>

namespace lmkit {

Scheduler::Scheduler(BlockPool& pool, const StepLimits& limits, Decide decide) : pool_(pool), limits_(limits), decide_(std::move(decide)) {
  running_.reserve(limits.sequences);
  holders_.reserve(limits.sequences);
  batch_.reserve(limits.sequences);
}

void Scheduler::add(Sequence& sequence) { sequence.place = waiting_.insert(waiting_.end(), &sequence); }

void Scheduler::remove(Sequence& sequence) noexcept {
  if (sequence.running) stop(sequence);
  else waiting_.erase(sequence.place);
}

const Batch& Scheduler::schedule() noexcept {
  batch_.clear();
  tokens_left_ = limits_.tokens;
  rows_left_ = limits_.logit_rows;

  for (const bool reads_prompt : {false, true}) {
    for (cursor_ = 0; cursor_ < std::ssize(running_); ++cursor_) {
      if (running_[cursor_]->reads_prompt() == reads_prompt) try_schedule(*running_[cursor_]);
    }
  }
  while (!waiting_.empty() && running() < limits_.sequences && try_schedule(*waiting_.front())) {
  }
  if (batch_.empty()) let_the_oldest_move();
  return batch_;
}

// False if it takes no part in this step.
bool Scheduler::try_schedule(Sequence& sequence) noexcept {
  const int tokens = chunk_of(sequence);
  if (tokens == 0) return false;
  give_back_passed(sequence);
  const int more = blocks_for(sequence.computed + tokens) - static_cast<int>(sequence.blocks.size());
  if (more > 0 && !get_blocks(sequence, more)) return false;
  if (!sequence.running) start(sequence);
  const int rows = rows_of(sequence, tokens);
  batch_.push_back({.sequence = &sequence, .tokens = tokens, .rows = rows});
  tokens_left_ -= tokens;
  rows_left_ -= rows;
  return true;
}

// A step in flight may still read them: what overwrites them comes after it.
void Scheduler::give_back_passed(Sequence& sequence) noexcept {
  const int behind = limits_.blocks_behind(sequence.computed);
  if (sequence.passed == behind) return;
  while (sequence.passed < behind) sequence.blocks[sequence.passed++] = {};
  holders_[index_of(sequence)].blocks = sequence.held();
}

int Scheduler::chunk_of(const Sequence& sequence) const noexcept {
  if (rows_left_ == 0 || sequence.awaits_its_end()) return 0;
  int tokens = std::min(sequence.missing(), tokens_left_);
  if (sequence.scores_prompt()) {
    const int scored = static_cast<int>(sequence.prompt_logprobs.size());
    tokens = std::min(tokens, std::max(0, scored - sequence.computed) + rows_left_);
  }
  return tokens;
}

// A row for each prompt token whose successor is to be scored, and one for the sequence's last token.
int Scheduler::rows_of(const Sequence& sequence, int tokens) const noexcept {
  const int end = sequence.computed + tokens;
  if (!sequence.scores_prompt()) return end == sequence.size() ? 1 : 0;
  const int scored = static_cast<int>(sequence.prompt_logprobs.size());
  const int unscored = std::max(0, std::min(end, sequence.prompt_tokens - 1) - std::max(sequence.computed, scored));
  return unscored + (end == sequence.size() ? 1 : 0);
}

bool Scheduler::get_blocks(Sequence& sequence, int count) noexcept {
  const Demand demand{.struct_size = sizeof(Demand),
                      .blocks = count,
                      .sequence = {sequence.id, sequence.id, sequence.held(), 0}};
  for (int preempted = 0; preempted <= limits_.sequences; ++preempted) {
    const PoolState state{.struct_size = sizeof(PoolState),
                          .total_blocks = pool_.total(),
                          .free_blocks = pool_.free(),
                          .cached_blocks = pool_.cached(),
                          .held_blocks = pool_.held(),
                          .waiting = waiting() - (sequence.running ? 0 : 1),
                          .holders = holders_.data(),
                          .holder_count = static_cast<std::int32_t>(holders_.size())};
    const Decision decision = decide_(state, demand);
    if (decision.verdict == LMKIT_GRANT && count <= pool_.free()) {
      take_blocks(sequence, count);
      return true;
    }
    if (decision.verdict != LMKIT_PREEMPT) return false;
    const auto victim = std::find_if(running_.begin(), running_.end(), [&](const Sequence* s) { return s->id == decision.victim; });
    if (victim == running_.end()) return false;
    const bool itself = *victim == &sequence;
    preempt(**victim);
    if (itself) return false;
  }
  return false;
}

void Scheduler::take_blocks(Sequence& sequence, int count) noexcept {
  for (int i = 0; i < count; ++i) sequence.blocks.push_back(pool_.take());
  if (sequence.running) holders_[index_of(sequence)].blocks += count;
}

void Scheduler::start(Sequence& sequence) noexcept {
  waiting_.erase(sequence.place);
  sequence.running = true;
  const auto at = static_cast<std::ptrdiff_t>(index_of(sequence));
  running_.insert(running_.begin() + at, &sequence);
  holders_.insert(holders_.begin() + at, Holder{sequence.id, sequence.id, sequence.held(), 0});
}

void Scheduler::stop(Sequence& sequence) noexcept {
  const auto at = static_cast<std::ptrdiff_t>(index_of(sequence));
  running_.erase(running_.begin() + at);
  holders_.erase(holders_.begin() + at);
  if (at <= cursor_) --cursor_;
  sequence.running = false;
  sequence.blocks.clear();
  sequence.passed = sequence.computed = 0;
}

void Scheduler::preempt(Sequence& victim) noexcept {
  const auto entry = std::find_if(batch_.begin(), batch_.end(), [&](const BatchEntry& e) { return e.sequence == &victim; });
  if (entry != batch_.end()) {
    tokens_left_ += entry->tokens;
    rows_left_ += entry->rows;
    batch_.erase(entry);
  }
  stop(victim);
  const auto later = std::find_if(waiting_.begin(), waiting_.end(), [&](const Sequence* s) { return s->id > victim.id; });
  victim.place = waiting_.insert(later, &victim);
  ++victim.preemptions;
  ++preemptions_;
}

// The latest arrivals make room until the oldest sequence can go on. It always can in the end: no sequence may come to hold more than
// the pool.
void Scheduler::let_the_oldest_move() noexcept {
  if (running_.empty() && waiting_.empty()) return;
  const bool queued = running_.empty() || (!waiting_.empty() && waiting_.front()->id < running_.front()->id);
  Sequence& oldest = queued ? *waiting_.front() : *running_.front();
  if (oldest.awaits_its_end()) return;
  const int more = blocks_for(oldest.computed + chunk_of(oldest)) - static_cast<int>(oldest.blocks.size());
  while (more > pool_.free() || (queued && running() == limits_.sequences)) preempt(*running_.back());
  if (more > 0) take_blocks(oldest, more);
  try_schedule(oldest);
}

void Scheduler::write(StepPlan& plan) const noexcept {
  plan.clear();
  for (const BatchEntry& entry : batch_) {
    plan.block_table_stride = std::max(plan.block_table_stride, static_cast<std::int32_t>(entry.sequence->blocks.size()));
  }
  for (const BatchEntry& entry : batch_) {
    const Sequence& sequence = *entry.sequence;
    const int end = sequence.computed + entry.tokens, begin = plan.size();
    const std::int32_t index = plan.sequences();
    plan.tokens.insert(plan.tokens.end(), sequence.tokens.begin() + sequence.computed, sequence.tokens.begin() + end);
    plan.token_sequence.insert(plan.token_sequence.end(), entry.tokens, index);
    plan.query_starts.push_back(plan.size());
    plan.kv_lengths.push_back(end);
    for (const BlockLease& block : sequence.blocks) plan.block_tables.push_back(std::max(0, block.id()));  // of those behind the window any
    plan.block_tables.resize(static_cast<std::size_t>(index + 1) * plan.block_table_stride, 0);

    const bool last = entry.reaches_end();
    const int scored = entry.rows - (last ? 1 : 0);
    const int first = std::max(sequence.computed, static_cast<int>(sequence.prompt_logprobs.size()));
    for (int i = 0; i < scored; ++i) plan.logit_rows.push_back(begin + first - sequence.computed + i);
    if (last) plan.logit_rows.push_back(begin + entry.tokens - 1);
  }
}

void Scheduler::advance() noexcept {
  for (const BatchEntry& entry : batch_) entry.sequence->computed += entry.tokens;
}

std::size_t Scheduler::index_of(const Sequence& sequence) const noexcept {
  return std::lower_bound(running_.begin(), running_.end(), sequence.id, [](const Sequence* s, RequestId id) { return s->id < id; }) -
         running_.begin();
}

}  // namespace lmkit
