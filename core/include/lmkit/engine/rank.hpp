// SPDX-License-Identifier: Apache-2.0
//
// Rank: one rank's share of the model with its memory, its threads and its view of the group.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/model/models.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace lmkit {

template <KvBackend K>
using MakeKv = std::function<K(const KvShape&)>;

template <ParallelStrategy P>
RankShape rank_shape(const ModelConfig& config, const typename P::Group& group, int rank) {
  return cut(config, [&](Role role, std::int64_t units) { return group.shard(rank, role, units); });
}

inline KvShape kv_shape(const ModelConfig& config, const RankShape& shape, const kernels::Device& device) noexcept {
  return {.struct_size = sizeof(KvShape),
          .device = device.kind(),
          .dtype = static_cast<lmkit_dtype>(device.dtype()),
          .query_heads = shape.query_heads(),
          .kv_heads = shape.kv_heads(),
          .group_size = config.query_heads / config.kv_heads,
          .group_offset = shape.group_offset,
          .head_dim = config.head_dim,
          .block_tokens = block_tokens};
}

template <ParallelStrategy P, KvBackend K>
RankSizes rank_sizes(const ModelConfig& config, const StepLimits& limits, const typename P::Group& group, const K& kv,
                     const kernels::Device& device) noexcept {
  const KvLimits kv_limits{.struct_size = sizeof(KvLimits),
                           .max_tokens = limits.tokens,
                           .max_sequences = limits.sequences,
                           .max_context = limits.context,
                           .workers = device.kind() == LMKIT_CPU ? limits.threads : 0};
  const std::int64_t largest = std::max(std::int64_t{limits.tokens} * config.hidden, std::int64_t{limits.logit_rows} * config.vocabulary);
  return {kv.block_bytes(), kv.workspace_bytes(kv_limits), group.workspace_bytes(largest)};
}

template <ParallelStrategy P, KvBackend K>
class Rank {
 public:
  // Loads this rank's weights into memory of exactly the ledger's size.
  Rank(const ModelFile& model, typename P::Group& group, int rank, const MakeKv<K>& make_kv, const kernels::OpenDevice& open_device,
       const StepLimits& limits, int blocks)
      : config_(model.config()),
        group_(group),
        rank_(rank),
        shape_(rank_shape<P>(config_, group, rank)),
        threads_(limits.threads),
        device_(open_device(rank, threads_.stream())),
        kv_(make_kv(kv_shape(config_, shape_, *device_))),
        forward_(forward_of<P, K>(config_, Models{})) {
    const RankSizes sizes = rank_sizes<P>(config_, limits, group, kv_, *device_);
    const RankLedger ledger = measure(model, shape_, limits, sizes, blocks, *device_);
    arena_ = device_->allocate(ledger.arena());
    arena_->use_large_pages(0, ledger.weights_packed);
    arena_->use_large_pages(ledger.arena() - ledger.kv_pool, ledger.arena());
    Carver carver(arena_->data());
    memory_ = lay_out(model, shape_, limits, sizes, blocks, carver, *device_);
    put_rope_table(model, limits.context);
    for (int r = 0; r < group.ranks().size; ++r) {
      const Shard rows = group.shard(r, Role::vocabulary, config_.vocabulary);
      vocabulary_shards_.push_back(rows.end - rows.begin);
    }
  }

  // Waits for the group's other ranks. Once, on the thread that will call run.
  void join() { parallel_.emplace(group_.join(rank_, memory_.communication)); }
  void leave() noexcept { parallel_.reset(); }

  Status run(const StepPlan& plan) noexcept {
    const StepArrays arrays{.tokens = plan.tokens.data(),
                            .token_sequence = plan.token_sequence.data(),
                            .query_starts = plan.query_starts.data(),
                            .kv_lengths = plan.kv_lengths.data(),
                            .block_tables = plan.block_tables.data(),
                            .block_table_stride = plan.block_table_stride,
                            .logit_rows = plan.logit_rows.data()};
    Step<P, K> step{.config = config_,
                    .shape = shape_,
                    .weights = memory_.weights,
                    .rope_table = memory_.rope_table.data(),
                    .vocabulary_shards = vocabulary_shards_,
                    .act = memory_.activations,
                    .pool = memory_.pool,
                    .parallel = *parallel_,
                    .kv = kv_,
                    .device = *device_,
                    .plan = plan,
                    .arrays = arrays};
    forward_(step);
    return step.status;
  }

  std::span<float> logits(std::size_t rows) noexcept { return memory_.activations.logits.first(rows * config_.vocabulary); }
  std::span<std::byte> kv_pool() noexcept { return memory_.kv_pool; }
  std::int64_t allocated() const noexcept { return arena_->bytes(); }
  Stream threads() noexcept { return threads_.stream(); }

 private:
  void put_rope_table(const ModelFile& model, int positions) {
    const auto divisors = model.find("rope_freqs.weight");
    const bool usable = divisors && divisors->format == WeightFormat::f32 && divisors->cols == config_.rope.rotary_dim / 2;
    std::vector<float> table(memory_.rope_table.size());
    fill_rope_table(config_.rope, usable ? reinterpret_cast<const float*>(divisors->data) : nullptr, positions, table.data(), threads());
    device_->put(memory_.rope_table.data(), table.data(), static_cast<std::int64_t>(table.size() * sizeof(float)));
  }

  const ModelConfig& config_;
  typename P::Group& group_;
  int rank_;
  RankShape shape_;
  TaskPool threads_;
  std::unique_ptr<kernels::Device> device_;
  K kv_;
  Forward<P, K> forward_;
  std::unique_ptr<Arena> arena_;
  RankMemory memory_;
  std::vector<std::int64_t> vocabulary_shards_;
  std::optional<P> parallel_;
};

}  // namespace lmkit
