// SPDX-License-Identifier: Apache-2.0
//
// Rank: one rank's share of the model with its memory, its threads and its view of the group.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/model/models.hpp>

#include <functional>
#include <optional>
#include <vector>

namespace lmkit {

template <ParallelStrategy P, KvBackend K>
using MakeKv = std::function<K(const KvShape&)>;

template <ParallelStrategy P>
RankShape rank_shape(const ModelConfig& config, const typename P::Group& group, int rank) {
  return cut(config, [&](Role role, std::int64_t units) { return group.shard(rank, role, units); });
}

inline KvShape kv_shape(const ModelConfig& config, const RankShape& shape) noexcept {
  return {.struct_size = sizeof(KvShape),
          .device = LMKIT_CPU,
          .dtype = LMKIT_F32,
          .query_heads = shape.query_heads(),
          .kv_heads = shape.kv_heads(),
          .group_size = config.query_heads / config.kv_heads,
          .group_offset = shape.group_offset,
          .head_dim = config.head_dim,
          .block_tokens = block_tokens};
}

template <ParallelStrategy P, KvBackend K>
RankSizes rank_sizes(const ModelConfig& config, const StepLimits& limits, const typename P::Group& group, const K& kv) noexcept {
  const KvLimits kv_limits{.struct_size = sizeof(KvLimits),
                           .max_tokens = limits.tokens,
                           .max_sequences = limits.sequences,
                           .max_context = limits.context,
                           .workers = limits.threads};
  const std::int64_t largest = std::max(std::int64_t{limits.tokens} * config.hidden, std::int64_t{limits.logit_rows} * config.vocabulary);
  return {kv.block_bytes(), kv.workspace_bytes(kv_limits), group.workspace_bytes(largest)};
}

template <ParallelStrategy P, KvBackend K>
class Rank {
 public:
  // Loads this rank's weights into memory of exactly the ledger's size.
  Rank(const ModelFile& model, typename P::Group& group, int rank, const std::function<K(const KvShape&)>& make_kv, const StepLimits& limits,
       int blocks)
      : config_(model.config()),
        group_(group),
        rank_(rank),
        shape_(rank_shape<P>(config_, group, rank)),
        kv_(make_kv(kv_shape(config_, shape_))),
        forward_(forward_of<P, K>(config_, Models{})),
        pool_(limits.threads) {
    const RankSizes sizes = rank_sizes<P>(config_, limits, group, kv_);
    Carver ruler;
    const RankLedger ledger = lay_out(model, shape_, limits, sizes, blocks, ruler, {}).ledger;
    arena_.emplace(ledger.arena());
    arena_->use_large_pages(0, ledger.weights_packed);
    arena_->use_large_pages(ledger.arena() - ledger.kv_pool, ledger.arena());
    Carver carver(arena_->data());
    memory_ = lay_out(model, shape_, limits, sizes, blocks, carver, pool_.stream());
    const auto divisors = model.find("rope_freqs.weight");
    const bool usable = divisors && divisors->format == WeightFormat::f32 && divisors->cols == config_.rope.rotary_dim / 2;
    fill_rope_table(config_.rope, usable ? reinterpret_cast<const float*>(divisors->data) : nullptr, limits.context,
                    memory_.rope_table.data(), pool_.stream());
    for (int r = 0; r < group.ranks().size; ++r) {
      const Shard rows = group.shard(r, Role::vocabulary, config_.vocabulary);
      vocabulary_shards_.push_back(rows.end - rows.begin);
    }
  }

  // Waits for the group's other ranks. Once, on the thread that will call run.
  void join() { parallel_.emplace(group_.join(rank_, memory_.communication)); }
  void leave() noexcept { parallel_.reset(); }

  Status run(const StepPlan& plan) noexcept {
    Step<P, K> step{.config = config_,
                    .shape = shape_,
                    .weights = memory_.weights,
                    .rope_table = memory_.rope_table.data(),
                    .vocabulary_shards = vocabulary_shards_,
                    .act = memory_.activations,
                    .pool = memory_.pool,
                    .parallel = *parallel_,
                    .kv = kv_,
                    .stream = pool_.stream(),
                    .plan = plan};
    forward_(step);
    return step.status;
  }

  std::span<float> logits(std::size_t rows) noexcept { return memory_.activations.logits.first(rows * config_.vocabulary); }
  std::span<std::byte> kv_pool() noexcept { return memory_.kv_pool; }
  std::int64_t allocated() const noexcept { return arena_->bytes(); }
  Stream stream() noexcept { return pool_.stream(); }

 private:
  const ModelConfig& config_;
  typename P::Group& group_;
  int rank_;
  RankShape shape_;
  K kv_;
  Forward<P, K> forward_;
  TaskPool pool_;
  std::optional<Arena> arena_;
  RankMemory memory_;
  std::vector<std::int64_t> vocabulary_shards_;
  std::optional<P> parallel_;
};

}  // namespace lmkit
