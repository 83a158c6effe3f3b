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
#include <lmkit/engine/service.hpp>
#include <lmkit/model/model_file.hpp>

#include <functional>
#include <memory>
#include <utility>

namespace lmkit {

// The three choices. A type that needs no settings needs no mention.
template <ParallelStrategy P = OneDevice, KvBackend K = KvF16, AllocatorPolicy A = WholePool>
struct PipelineParts {
  std::shared_ptr<typename P::Group> group = std::make_shared<typename P::Group>();
  std::function<K(const KvShape&)> make_kv = [](const KvShape& shape) { return K(shape); };  // once for each rank; may throw Error
  A allocator{};
};

template <ParallelStrategy P = OneDevice, KvBackend K = KvF16, AllocatorPolicy A = WholePool>
class Pipeline {
 public:
  using Parts = PipelineParts<P, K, A>;

  // What it would take, without loading anything. Throws Error(memory) when the pool would be below one block.
  static Ledger plan(const ModelFile& model, const Parts& parts, const EngineLimits& limits);

  // Loads the weights and starts the ranks; throws Error.
  explicit Pipeline(std::shared_ptr<const ModelFile> model, Parts parts = {}, const EngineLimits& limits = {});

  const ModelFile& model() const noexcept;
  const Ledger& ledger() const noexcept;

  // One of the two: step by hand, or let a thread do it until the pipeline ends.
  Engine& engine() noexcept;
  Service& start();
};

}  // namespace lmkit
