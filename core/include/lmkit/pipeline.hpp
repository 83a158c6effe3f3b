// SPDX-License-Identifier: Apache-2.0
//
// Pipeline: where a model and the three concepts meet.
//
//     Pipeline pipeline(open_model("model.gguf"));                        // OneDevice, KvF16, WholePool
//     Pipeline<AnyParallel, AnyKvBackend, AnyAllocator> composed(model, {group, make_kv, policy}, limits);
//     Service& service = pipeline.start();
#pragma once

#include <lmkit/builtin/kv_f16.hpp>
#include <lmkit/builtin/one_device.hpp>
#include <lmkit/builtin/whole_pool.hpp>
#include <lmkit/concepts/allocator_policy.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/concepts/parallel_strategy.hpp>
#include <lmkit/engine/engine.hpp>
#include <lmkit/engine/memory_plan.hpp>
#include <lmkit/engine/rank_group.hpp>
#include <lmkit/engine/service.hpp>
#include <lmkit/model/model_file.hpp>
#include <lmkit/text/tokenizer.hpp>

#include <algorithm>
#include <concepts>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <utility>

namespace lmkit {

// Makes a K of nothing but a shape, where there is such a K.
template <KvBackend K>
MakeKv<K> plain_kv() {
  if constexpr (std::constructible_from<K, const KvShape&>) return [](const KvShape& shape) { return K(shape); };
  else return {};
}

// The three choices. A type that needs no settings needs no mention.
template <ParallelStrategy P = OneDevice, KvBackend K = KvF16, AllocatorPolicy A = WholePool>
struct PipelineParts {
  std::shared_ptr<typename P::Group> group = std::make_shared<typename P::Group>();
  MakeKv<K> make_kv = plain_kv<K>();  // once for each rank, from the ranks' threads; may throw Error
  A allocator{};
  kernels::OpenDevice open_device = kernels::open_cpu;  // likewise
};

template <ParallelStrategy P = OneDevice, KvBackend K = KvF16, AllocatorPolicy A = WholePool>
class Pipeline {
 public:
  using Parts = PipelineParts<P, K, A>;

  // What it would take, without loading anything. Throws Error(memory) when the pool would be below one block.
  static Ledger plan(const ModelFile& model, const Parts& parts, const EngineLimits& limits) {
    const ModelConfig& config = model.config();
    const Ranks ranks = parts.group->ranks();
    auto device = parts.open_device(0, {});
    check_ranks(ranks, config, device->kind());
    const StepLimits step = resolve(limits, config, ranks.size, device->kind());

    Ledger ledger;
    ledger.device = device->kind();
    ledger.blocks = std::numeric_limits<int>::max();  // all pools have as many as the poorest rank can hold
    for (int r = 0; r < ranks.size; ++r) {
      if (r > 0) device = parts.open_device(r, {});
      ledger.memory = device->room(limits.device_memory) / (device->kind() == LMKIT_CPU ? ranks.size : 1);
      const RankShape shape = rank_shape<P>(config, *parts.group, r);
      const RankSizes sizes = rank_sizes<P>(config, step, *parts.group, parts.make_kv(kv_shape(config, shape, *device)), *device);
      const RankLedger rank = ledger.ranks.emplace_back(measure(model, shape, step, sizes, 0, *device));
      check_room(rank, ledger.memory);
      const std::int64_t granted = parts.allocator.kv_bytes(report_of(rank, step, ledger.memory));
      ledger.blocks = std::min(ledger.blocks, blocks_of(rank, step, ledger.memory, granted));
    }
    for (RankLedger& rank : ledger.ranks) rank.kv_pool = ledger.blocks * rank.kv_block_bytes;
    ledger.session_len = ledger.blocks >= step.most_blocks() ? step.context : static_cast<int>(std::min<std::int64_t>(step.context, ledger.kv_tokens()));
    return ledger;
  }

  // Loads the weights and starts the ranks; throws Error.
  explicit Pipeline(std::shared_ptr<const ModelFile> model, Parts parts = {}, const EngineLimits& limits = {})
      : model_(std::move(model)), ledger_(plan(*model_, parts, limits)) {
    auto tokenizer = std::async(std::launch::async, [this] { return std::make_shared<const Tokenizer>(model_->tokenizer()); });
    const StepLimits step = resolve(limits, model_->config(), parts.group->ranks().size, ledger_.device);
    auto ranks = std::make_unique<RankGroup<P, K>>(*model_, std::move(parts.group), parts.make_kv, parts.open_device, step, ledger_.blocks);
    tokenizer_ = tokenizer.get();
    auto policy = std::make_shared<A>(std::move(parts.allocator));
    auto decide = [policy](const PoolState& pool, const Demand& demand) { return policy->decide(pool, demand); };
    engine_ = std::make_unique<Engine>(std::move(ranks), tokenizer_, std::move(decide), step, ledger_, model_->config());
  }

  const ModelFile& model() const noexcept { return *model_; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const noexcept { return tokenizer_; }
  const Ledger& ledger() const noexcept { return ledger_; }

  // One of the two: step by hand, or let a thread do it until the pipeline ends.
  Engine& engine() noexcept { return *engine_; }
  Service& start() {
    if (!service_) service_ = start_service(*engine_);
    return *service_;
  }

 private:
  std::shared_ptr<const ModelFile> model_;
  Ledger ledger_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Service> service_;  // last: its thread uses the engine
};

}  // namespace lmkit
