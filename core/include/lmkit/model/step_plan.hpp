// SPDX-License-Identifier: Apache-2.0
//
// StepPlan: one step as plain numbers. Rank 0 writes it; every rank executes its own copy after all of them have seen
// the same hash. Positions follow from lengths: see abi/kv.h for the ragged batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lmkit {

struct StepPlan {
  std::int64_t number = 0;
  std::vector<std::int32_t> tokens;          // (tokens); below 0: the one that row -1 - token of the step before draws
  std::vector<std::int32_t> token_sequence;  // (tokens) the sequence of each
  std::vector<std::int32_t> query_starts;    // (sequences + 1)
  std::vector<std::int32_t> kv_lengths;      // (sequences) with this step's tokens
  std::vector<std::int32_t> block_tables;    // (sequences, block_table_stride)
  std::int32_t block_table_stride = 0;
  std::vector<std::int32_t> logit_rows;      // tokens of the step whose logits are wanted, ascending

  int sequences() const noexcept { return static_cast<int>(kv_lengths.size()); }
  int size() const noexcept { return static_cast<int>(tokens.size()); }

  // Keeps the storage, so that no step allocates once the largest has been seen.
  void clear() noexcept {
    for (auto* list : {&tokens, &token_sequence, &kv_lengths, &block_tables, &logit_rows}) list->clear();
    query_starts.assign(1, 0);
    block_table_stride = 0;
  }
};

// FNV-1a over 32-bit words.
inline std::uint64_t hash_of(const StepPlan& plan) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&hash](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3u; };
  add(static_cast<std::uint64_t>(plan.number));
  add(static_cast<std::uint32_t>(plan.block_table_stride));
  for (const auto* list : {&plan.tokens, &plan.token_sequence, &plan.query_starts, &plan.kv_lengths, &plan.block_tables, &plan.logit_rows}) {
    add(list->size());
    for (const std::int32_t value : *list) add(static_cast<std::uint32_t>(value));
  }
  return hash;
}

}  // namespace lmkit
