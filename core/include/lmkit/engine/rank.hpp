// SPDX-License-Identifier: Apache-2.0
//
// Rank: one rank's share of the model on its device, with its memory, its threads and its view of the group.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/engine/queued_steps.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/model/models.hpp>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
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
  const std::int64_t alignment = device.kind() == LMKIT_CUDA ? 256 : 64;  // of a layer's part (abi/kv.h)
  return {(kv.block_bytes() + alignment - 1) / alignment * alignment, kv.workspace_bytes(kv_limits), group.workspace_bytes(largest)};
}

template <ParallelStrategy P, KvBackend K>
class Rank {
 public:
  // Loads this rank's weights into memory of exactly the ledger's size.
  Rank(const ModelFile& model, typename P::Group& group, int rank, const MakeKv<K>& make_kv, const kernels::OpenDevice& open_device,
       const StepLimits& limits, int blocks)
      : config_(model.config()),
        limits_(limits),
        group_(group),
        rank_(rank),
        shape_(rank_shape<P>(config_, group, rank)),
        threads_(limits.threads),
        samplers_(limits.threads),
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
    put_rope_table(model);
    for (int r = 0; r < group.ranks().size; ++r) {
      const Shard rows = group.shard(r, Role::vocabulary, config_.vocabulary);
      vocabulary_shards_.push_back(rows.end - rows.begin);
    }
    if (device_->queue()) steps_.emplace(*device_->queue(), limits, memory_.step, memory_.activations.logits, blocks);
  }

  // Waits for the group's other ranks. Once, on the thread that will call start.
  void join() {
    parallel_.emplace(group_.join(rank_, memory_.communication));
    if (steps_) record_steps();
  }
  void leave() noexcept { parallel_.reset(); }

  bool overlaps() const noexcept { return steps_.has_value(); }

  Status start(const StepPlan& plan, std::span<const Draw> draws) noexcept {
    if (steps_) return enqueue(plan, draws);
    draws_.assign(draws.begin(), draws.end());
    return forward(plan, arrays_of(plan));
  }

  double idle_seconds() const noexcept { return steps_ ? steps_->idle_seconds() : 0.0; }

  Status finish(std::vector<Choice>& choices) noexcept {
    if (steps_) return steps_->finish(samplers_, threads_.stream(), choices);
    choices.assign(draws_.size(), {});
    threads_.stream().parallel_for(static_cast<std::int32_t>(draws_.size()), [&](std::int32_t i, std::int32_t worker) {
      const auto row = memory_.activations.logits.subspan(static_cast<std::size_t>(i) * config_.vocabulary, config_.vocabulary);
      choices[i] = choose(samplers_[worker], row, draws_[i]);
    });
    return Status::ok;
  }

  std::span<const float> logits() noexcept {
    return steps_ ? steps_->logits() : std::span<const float>(memory_.activations.logits.first(draws_.size() * config_.vocabulary));
  }
  std::span<std::byte> kv_pool() noexcept {
    const std::int64_t spare = steps_ ? memory_.pool.block_stride : 0;
    return memory_.kv_pool.first(memory_.kv_pool.size() - static_cast<std::size_t>(spare));
  }
  kernels::Device& device() noexcept { return *device_; }
  std::int64_t allocated() const noexcept { return arena_->bytes(); }

 private:
  struct Recorded {
    int size;  // decodes
    int recording;
  };

  void put_rope_table(const ModelFile& model) {
    const std::vector<float> table = rope_table(model, limits_.context, threads_.stream());
    device_->put(memory_.rope_table.data(), table.data(), static_cast<std::int64_t>(table.size() * sizeof(float)));
  }

  static StepArrays arrays_of(const StepPlan& plan) noexcept {
    return {.tokens = plan.tokens.data(),
            .token_sequence = plan.token_sequence.data(),
            .query_starts = plan.query_starts.data(),
            .kv_lengths = plan.kv_lengths.data(),
            .block_tables = plan.block_tables.data(),
            .block_table_stride = plan.block_table_stride,
            .logit_rows = plan.logit_rows.data()};
  }

  Status forward(const StepPlan& plan, const StepArrays& arrays) noexcept {
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

  // --- on a device with a queue

  Status forward_and_sample(const StepPlan& plan) noexcept {
    const Status status = forward(plan, steps_->arrays());
    return status == Status::ok && !plan.logit_rows.empty() ? steps_->sample(static_cast<int>(plan.logit_rows.size())) : status;
  }

  // The smallest recording that holds the plan, if it is of decodes alone.
  const Recorded* recorded_for(const StepPlan& plan) const noexcept {
    const int size = plan.sequences();
    if (plan.size() != size || std::ssize(plan.logit_rows) != size) return nullptr;
    const auto found = std::ranges::lower_bound(recorded_, size, {}, &Recorded::size);
    return found == recorded_.end() ? nullptr : &*found;
  }

  Status enqueue(const StepPlan& plan, std::span<const Draw> draws) noexcept {
    const Recorded* const recorded = recorded_for(plan);
    Status status = steps_->upload(plan, draws, recorded ? recorded->size : 0);
    if (status == Status::ok) status = recorded ? device_->queue()->replay(recorded->recording) : forward_and_sample(plan);
    const Status downloaded = steps_->download();
    return status == Status::ok ? downloaded : status;
  }

  // Runs every kernel once, on nobody's blocks, so that the driver has loaded them all; then records the decodes.
  void record_steps() {
    const auto check = [](Status status) {
      if (status != Status::ok) throw Error(ErrorKind::device, "the first step failed: " + last_failure());
    };
    prepare_linears();
    std::vector<Choice> nothing;
    StepPlan longest = steps_->fillers(1);
    const int tokens = std::min(limits_.tokens, block_tokens);
    longest.tokens.assign(tokens, 0);
    longest.token_sequence.assign(tokens, 0);
    longest.query_starts.back() = longest.kv_lengths.back() = tokens;
    longest.logit_rows.back() = tokens - 1;
    const std::vector<int> sizes = QueuedSteps::recorded_sizes(limits_.sequences);
    for (const StepPlan& plan : {longest, steps_->fillers(1), steps_->fillers(sizes.back())}) {
      std::vector<Draw> draws(plan.logit_rows.size(), Draw{.known = 0});
      check(steps_->upload(plan, draws, 0));
      check(forward_and_sample(plan));
      check(steps_->download());
      check(steps_->finish(samplers_, threads_.stream(), nothing));
    }
    if (limits_.eager) return;
    for (const int size : sizes) {
      const StepPlan plan = steps_->fillers(size);
      recorded_.push_back({size, device_->queue()->record([&] { return forward_and_sample(plan); })});
    }
  }

  void prepare_linears() {
    const Weights& weights = memory_.weights;
    const auto products = [&](std::int64_t tokens) { return Products{memory_.activations, tokens, device_->dtype(), config_.rms_eps}; };
    const Products of_step = products(limits_.tokens);
    for (const LayerWeights& layer : {weights.layers.front(), weights.layers.back()}) {
      device_->prepare(layer.qkv, of_step.normed(layer.attention_norm, of_step.act.qkv));
      device_->prepare(layer.attention_output, of_step.added(of_step.act.attended));
      device_->prepare(layer.gate_up, of_step.gated(layer.ffn_norm));
      device_->prepare(layer.down, of_step.added(of_step.act.activated));
    }
    device_->prepare(weights.output, products(limits_.logit_rows).logits(weights.output_norm));
  }

  const ModelConfig& config_;
  StepLimits limits_;
  typename P::Group& group_;
  int rank_;
  RankShape shape_;
  TaskPool threads_;
  std::vector<Sampler> samplers_;  // one for each thread
  std::unique_ptr<kernels::Device> device_;
  K kv_;
  Forward<P, K> forward_;
  std::unique_ptr<Arena> arena_;
  RankMemory memory_;
  std::vector<std::int64_t> vocabulary_shards_;
  std::optional<P> parallel_;
  std::vector<Draw> draws_;            // of the step that was started
  std::optional<QueuedSteps> steps_;
  std::vector<Recorded> recorded_;     // by size
};

}  // namespace lmkit
