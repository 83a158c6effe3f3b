// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/model/models.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace lmkit {
namespace {

std::string mib(std::int64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024 * 1024)); }

int at_least_one(int value, const char* name) {
  if (value < 1) throw Error(ErrorKind::usage, fmt::format("{} is {}", name, value), "at least 1");
  return value;
}

}  // namespace

StepLimits resolve(const EngineLimits& limits, const ModelConfig& config, int ranks, lmkit_device device) {
  StepLimits step;
  const int threads = limits.threads > 0 ? limits.threads : available_cpus();
  step.threads = std::max(1, threads / ranks);
  step.sequences = at_least_one(limits.max_sequences, "the number of sequences in a step");
  const int tokens = limits.max_batch_tokens != 0 ? limits.max_batch_tokens : device == LMKIT_CUDA ? 4096 : 512;
  step.tokens = std::max(at_least_one(tokens, "the number of tokens in a step"), step.sequences);
  step.logit_rows = std::max(step.sequences, std::min(StepLimits::scored_rows, step.tokens));
  step.context = limits.session_len == 0 ? config.max_context : at_least_one(limits.session_len, "the session length");
  if (step.context > config.max_context) {
    throw Error(ErrorKind::usage, fmt::format("a session length of {} tokens", step.context),
                fmt::format("at most the model's context of {}", config.max_context), "a smaller --session-len");
  }
  step.window = config.window_of(0);  // the layers that have none come first
  step.eager = limits.eager;
  return step;
}

void check_ranks(const Ranks& ranks, const ModelConfig& config, lmkit_device device) {
  if (ranks.size > 1 && ranks.device != device) {
    constexpr const char* names[] = {"CPU threads", "GPUs"};
    throw Error(ErrorKind::device, fmt::format("{} ranks that are {}", ranks.size, names[ranks.device]),
                fmt::format("{}, where the model is to run", names[device]), device == LMKIT_CUDA ? "--device cpu" : "--device cuda");
  }
  if (ranks.size < 1 || ranks.size > config.query_heads) {
    throw Error(ErrorKind::usage, fmt::format("{} ranks for a model of {} query heads", ranks.size, config.query_heads),
                fmt::format("1 to {} ranks", config.query_heads), "a smaller size");
  }
  if (ranks.local_begin != 0 || ranks.local_end != ranks.size) {
    throw Error(ErrorKind::plugin, fmt::format("ranks {}..{} of {} in this process", ranks.local_begin, ranks.local_end, ranks.size),
                "all ranks of a group in one process");
  }
}

RankMemory lay_out(const ModelFile& model, const RankShape& shape, const StepLimits& limits, const RankSizes& sizes, int blocks,
                   Carver& carver, kernels::Device& device) {
  const ModelConfig& config = model.config();
  RankMemory memory;
  RankLedger& ledger = memory.ledger;
  std::int64_t before = 0;
  const auto spent = [&] { return carver.used() - std::exchange(before, carver.used()); };
  const auto dense = [&, bytes = size_of(device.dtype())](std::int64_t count) { return carver.take<std::byte>(count * bytes).data(); };

  ledger.in_use = device.in_use();
  ledger.runtime = device.runtime_bytes();
  WeightLoader loader(model, carver, device);
  memory.weights = load_weights_of(config)(config, shape, loader);
  ledger.weights_mapped = memory.weights.mapped_bytes;
  memory.rope_table = carver.take<float>(std::int64_t{limits.context} * config.rope.rotary_dim);
  ledger.weights_packed = spent();

  const std::int64_t tokens = limits.tokens, hidden = config.hidden, ffn = shape.ffn();
  const std::int64_t attended = std::int64_t{shape.query_heads()} * config.head_dim;
  const std::int64_t qkv = attended + 2 * std::int64_t{shape.kv_heads()} * config.head_dim;
  Activations& act = memory.activations;
  act.residual = dense(tokens * hidden);
  act.x = dense(tokens * hidden);
  std::byte* const shared = dense(tokens * std::max(qkv + attended, 3 * ffn));
  if (shared) {
    act.qkv = act.gate_up = shared;
    act.attended = shared + tokens * qkv * size_of(device.dtype());
    act.activated = shared + tokens * 2 * ffn * size_of(device.dtype());
  }
  act.logit_x = dense(limits.logit_rows * hidden);
  if (kernels::Queue* const queue = device.queue()) {
    constexpr std::int64_t most_edits = 1 << 20;
    StepRoom& step = memory.step;
    step.inputs = carver.take<std::byte>(StepInputs(limits).bytes);
    step.block_tables = carver.take<std::int32_t>(std::int64_t{limits.sequences} * blocks_for(limits.context));
    step.edits = carver.take<kernels::LogitEdit>(std::min(most_edits, std::int64_t{limits.sequences} * limits.context));
    step.drawn = carver.take<kernels::Sampled>(limits.logit_rows);
    step.sample_workspace = carver.take<std::byte>(queue->sample_workspace_bytes(limits.logit_rows, config.vocabulary)).data();
  }
  ledger.activations = spent();

  act.workspace = carver.take<std::byte>(device.linear_workspace_bytes(tokens, std::max({hidden, attended, ffn}))).data();
  act.kv_workspace = carver.take<std::byte>(sizes.kv_workspace).data();
  ledger.workspace = spent();

  act.logits = carver.take<float>(std::int64_t{limits.logit_rows} * config.vocabulary);
  const bool has_all_rows = shape.vocabulary() == config.vocabulary;
  act.my_logits = has_all_rows ? act.logits : carver.take<float>(std::int64_t{limits.logit_rows} * shape.vocabulary());
  ledger.logits = spent();

  memory.communication = carver.take<std::byte>(sizes.communication);
  ledger.communication = spent();

  // Where steps are filled up, the fillers share a block behind the pool.
  const int spare = device.queue() ? 1 : 0;
  ledger.kv_block_bytes = sizes.kv_layer_bytes * config.layers;
  memory.kv_pool = carver.take<std::byte>((blocks + spare) * ledger.kv_block_bytes);
  memory.pool = {.base = memory.kv_pool.data(), .block_stride = ledger.kv_block_bytes, .layer_stride = sizes.kv_layer_bytes};
  ledger.kv_pool = blocks * ledger.kv_block_bytes;
  ledger.activations += spent() - ledger.kv_pool;
  return memory;
}

MemoryReport report_of(const RankLedger& rank, const StepLimits& limits, std::int64_t memory) noexcept {
  return {.struct_size = sizeof(MemoryReport),
          .block_tokens = block_tokens,
          .total = memory,
          .used = rank.fixed(),
          .block_bytes = rank.kv_block_bytes,
          .max_tokens = std::int64_t{limits.sequences} * limits.most_blocks() * block_tokens};
}

void check_room(const RankLedger& rank, std::int64_t memory) {
  const std::int64_t left = memory - rank.fixed();
  if (left >= rank.kv_block_bytes) return;
  throw Error(ErrorKind::memory,
              fmt::format("the KV pool has 0 blocks: of {} {} are in use, the weights and buffers take {}, which leaves {}", mib(memory), mib(rank.in_use),
                          mib(rank.fixed() - rank.in_use), mib(std::max<std::int64_t>(0, left))),
              fmt::format("room for at least one block of {} tokens ({})", block_tokens, mib(rank.kv_block_bytes)),
              "a larger --device-memory-limit, a smaller --max-batch-size, or a KV plugin with fewer bits");
}

int blocks_of(const RankLedger& rank, const StepLimits& limits, std::int64_t memory, std::int64_t granted) {
  const std::int64_t blocks = std::min(memory - rank.fixed(), granted) / rank.kv_block_bytes;
  if (blocks < 1) {
    throw Error(ErrorKind::memory, fmt::format("the KV pool has 0 blocks: the allocator grants it {}", mib(granted)),
                fmt::format("at least one block of {} tokens ({})", block_tokens, mib(rank.kv_block_bytes)),
                "a larger share for the KV cache, or a KV plugin with fewer bits");
  }
  return static_cast<int>(std::min(blocks, std::int64_t{limits.sequences} * limits.most_blocks()));
}

}  // namespace lmkit
