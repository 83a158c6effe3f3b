// SPDX-License-Identifier: Apache-2.0
//
// One rank's memory, laid out once: with a measuring carver this is the ledger, with a real one it is the memory that
// the ledger promised, weights loaded.
#pragma once

#include <lmkit/base/arena.hpp>
#include <lmkit/concepts/allocator_policy.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/engine/memory_plan.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/kernels/queue.hpp>
#include <lmkit/model/layers.hpp>
#include <lmkit/model/model_file.hpp>
#include <lmkit/model/weights.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

namespace lmkit {

inline constexpr int block_tokens = 64;

constexpr int blocks_for(std::int64_t tokens) noexcept { return static_cast<int>((tokens + block_tokens - 1) / block_tokens); }

// EngineLimits with every default filled in.
struct StepLimits {
  static constexpr int scored_rows = 64;  // logits of a step beyond one row for each sequence: prompt_logprobs

  int threads = 1;     // of one rank
  int sequences = 1;   // in a step
  int tokens = 1;      // in a step
  int logit_rows = 1;  // in a step
  int context = 1;     // tokens of one sequence
  int window = 0;      // tokens that a layer sees at most; 0: some layer sees all
  bool eager = false;  // as in EngineLimits

  // Leading blocks that nobody reads again once so many tokens of a sequence are computed: all before the one that is before the oldest
  // token in the window (attention over centred keys reads that one's mean, kernels/kv.hpp).
  int blocks_behind(int computed) const noexcept { return window == 0 ? 0 : std::max(0, (computed - window + 1) / block_tokens - 1); }
  // Blocks that one sequence holds at a time.
  int most_blocks() const noexcept { return window == 0 ? blocks_for(context) : std::min(blocks_for(context), blocks_for(window - 1 + tokens) + 2); }
};

// Throws Error(usage).
StepLimits resolve(const EngineLimits& limits, const ModelConfig& config, int ranks, lmkit_device device);
void check_ranks(const Ranks& ranks, const ModelConfig& config, lmkit_device device);

// What the concepts say they need, in bytes.
struct RankSizes {
  std::int64_t kv_layer_bytes = 0;  // one layer's part of a block
  std::int64_t kv_workspace = 0;
  std::int64_t communication = 0;
};

// Where a step's inputs lie, in bytes from the beginning of one run of memory that is copied in one go.
struct StepInputs {
  explicit StepInputs(const StepLimits& limits) noexcept;

  std::int64_t query_starts, kv_lengths, logit_rows, sample_rows, tokens, token_sequence;
  std::int64_t bytes = 0;
};

// What a step needs on a device that has a queue (engine/queued_steps.hpp).
struct StepRoom {
  std::span<std::byte> inputs;                  // StepInputs
  std::span<std::int32_t> block_tables;         // (sequences, blocks of the longest)
  std::span<kernels::LogitEdit> edits;          // of all rows together
  std::span<kernels::Sampled> drawn;            // (logit rows)
  std::byte* sample_workspace = nullptr;
};

struct RankMemory {
  RankLedger ledger;
  Weights weights;
  std::span<float> rope_table;  // (context, rotary_dim / 2, 2), not filled yet
  Activations activations;
  StepRoom step;
  std::span<std::byte> communication;
  std::span<std::byte> kv_pool;
  KvPool pool;
};

RankMemory lay_out(const ModelFile& model, const RankShape& shape, const StepLimits& limits, const RankSizes& sizes, int blocks,
                   Carver& carver, kernels::Device& device);

// The ledger of a rank with a pool of so many blocks.
inline RankLedger measure(const ModelFile& model, const RankShape& shape, const StepLimits& limits, const RankSizes& sizes, int blocks,
                          kernels::Device& device) {
  Carver ruler;
  return lay_out(model, shape, limits, sizes, blocks, ruler, device).ledger;
}

MemoryReport report_of(const RankLedger& rank, const StepLimits& limits, std::int64_t memory) noexcept;

// Throws Error(memory) if not even one block is left.
void check_room(const RankLedger& rank, std::int64_t memory);
// Blocks of a pool of `granted` bytes, within what is left; throws Error(memory) below one.
int blocks_of(const RankLedger& rank, const StepLimits& limits, std::int64_t memory, std::int64_t granted);

}  // namespace lmkit
