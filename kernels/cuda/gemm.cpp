// SPDX-License-Identifier: Apache-2.0
#include "gemm_cache.hpp"
#include "gemm_few.hpp"
#include "gemm_library.hpp"
#include "gemm_stopwatch.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/kernels/cuda/activation.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace lmkit::kernels::cuda {

namespace {

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string(what) + " failed: " + cudaGetErrorString(error));
}

void require_shape(const GemmShape& shape) {
  const bool is_16_bit = shape.dtype == Dtype::f16 || shape.dtype == Dtype::bf16;
  const bool is_stored = shape.end == LinearEnd::store;
  const std::int64_t row_multiple = shape.end == LinearEnd::gate ? 16 : 8;
  if (is_16_bit && (shape.out == shape.dtype || (is_stored && shape.out == Dtype::f32)) && shape.rows > 0 && shape.cols > 0 &&
      shape.rows % row_multiple == 0 && shape.cols % 8 == 0)
    return;
  throw Error(ErrorKind::device, "a matrix of " + std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " values",
              "fp16 or bf16 values in multiples of 8 rows (16 with a gate) and columns, and a product of that type or stored as fp32");
}

Status refuse(const Stream& stream, const char* reason) noexcept {
  if (stream.host) stream.host->fail(reason);
  return Status::invalid_argument;
}

// How token counts up to `tokens`, and above those of the step before, are run.
struct Step {
  std::int64_t tokens;
  GemmChoice choice;
  LibraryAlgorithm algorithm;  // of the library

  bool is_own() const noexcept { return choice.source == GemmChoice::Source::own; }
};

struct Plan {
  Plan(const CublasLt& lt, const GemmShape& shape, bool has_bias) : shape(shape), has_bias(has_bias), library(lt, shape, has_bias) {}

  GemmShape shape;
  bool has_bias;
  LibraryGemm library;
  std::vector<Step> steps;  // token counts ascend
};

}  // namespace

struct Gemm::Impl {
  CublasLt lt;
  FewGemm few;
  GemmCache cache{GemmCache::path_for(gpu_name(), lt.version())};
  std::deque<Plan> plans;

  // Microseconds that a product loses between two of the other source: neither launch overlaps its own, and multiprocessors cut their
  // memory anew. On an H200 the products of an 8B layer with 16 tokens take 123 us from both in turn, 115 from ours, and by themselves
  // 115 in sum either way. So one source is to have all products of a step.
  static constexpr double handicap_among_others = 4;
  GemmChoice::Source usual_source(std::int64_t tokens) const noexcept {
    return tokens <= few.usual_tokens() ? GemmChoice::Source::own : GemmChoice::Source::library;
  }

  Plan* find(const GemmShape& shape, bool has_bias) noexcept {
    const auto found = std::ranges::find_if(plans, [&](const Plan& plan) { return plan.shape == shape && plan.has_bias == has_bias; });
    return found == plans.end() ? nullptr : &*found;
  }

  Status run(Plan& plan, const Step& step, GemmArgs args, void* workspace, Stream stream) const noexcept {
    const GemmShape& shape = plan.shape;
    if (step.is_own()) return few.run(step.choice.candidate, shape, args, stream);
    if (shape.end != LinearEnd::gate) return plan.library.run(step.algorithm, args, workspace, stream);
    void* const y = std::exchange(args.y, args.y_scratch);
    const Status multiplied = plan.library.run(step.algorithm, args, workspace, stream);
    return multiplied == Status::ok ? silu_mul(args.y, y, args.tokens, shape.width(), shape.dtype, stream) : multiplied;
  }

  // Token counts first .. last by that choice, if it can run them all.
  std::optional<Step> step_of(Plan& plan, GemmChoice choice, std::span<const LibraryAlgorithm> algorithms, std::int64_t first, std::int64_t last) const {
    if (choice.source == GemmChoice::Source::own) {
      if (few.can_run(choice.candidate, plan.shape, last)) return Step{last, choice, {}};
    } else if (choice.candidate < static_cast<int>(algorithms.size()) && plan.library.takes(algorithms[choice.candidate], first, last)) {
      return Step{last, choice, algorithms[choice.candidate]};
    }
    return {};
  }

  // Token counts first .. last: as remembered, or as measured to be the fastest.
  Step choose(Plan& plan, std::int64_t first, std::int64_t last, GemmArgs args, void* workspace, Stream stream, Stopwatch& stopwatch) {
    const std::string key = gemm_key(plan.shape, plan.has_bias, last);
    const auto algorithms = plan.library.candidates(last);
    args.tokens = last;
    if (const auto known = cache.find(key)) {
      const auto step = step_of(plan, *known, algorithms, first, last);
      // run once, so that no code is left to load when a graph is recorded
      if (step && run(plan, *step, args, workspace, stream) == Status::ok) return *step;
    }
    std::optional<Step> best;
    double best_time = Stopwatch::never;
    const auto race = [&](GemmChoice::Source source, int count) {
      const double handicap = source == usual_source(last) ? 0 : handicap_among_others;
      for (int n = 0; n < count; ++n) {
        const auto step = step_of(plan, {source, n}, algorithms, first, last);
        if (!step) continue;
        const double time = handicap + stopwatch.time(last, best_time, [&] { return run(plan, *step, args, workspace, stream); });
        if (time < best_time) best = step, best_time = time;
      }
    };
    race(GemmChoice::Source::own, FewGemm::ways);
    race(GemmChoice::Source::library, static_cast<int>(algorithms.size()));
    if (!best) throw Error(ErrorKind::device, "neither cuBLASLt nor lmkit can run the product of matrices " + key);
    cache.add(key, best->choice);
    return *best;
  }
};

Gemm::Gemm() : impl_(std::make_unique<Impl>()) {}
Gemm::~Gemm() = default;

void Gemm::prepare(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream) {
  require_shape(shape);
  Plan* plan = impl_->find(shape, args.bias != nullptr);
  if (!plan) plan = &impl_->plans.emplace_back(impl_->lt, shape, args.bias != nullptr);
  if (!plan->steps.empty() && plan->steps.back().tokens >= args.tokens) return;
  Stopwatch stopwatch(shape, args, workspace, stream);
  std::vector<Step> steps;
  for (const std::int64_t last : gemm_buckets(args.tokens)) {
    const std::int64_t first = steps.empty() ? 1 : steps.back().tokens + 1;
    steps.push_back(impl_->choose(*plan, first, last, args, workspace, stream, stopwatch));
  }
  plan->steps = std::move(steps);
  require(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream.handle)), "measuring products of matrices");
  impl_->cache.save();
}

Status Gemm::run(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream) noexcept {
  if (args.tokens == 0) return Status::ok;
  Plan* plan = impl_->find(shape, args.bias != nullptr);
  if (!plan || args.tokens < 0) return refuse(stream, "a product of matrices that was not prepared");
  const auto step = std::ranges::lower_bound(plan->steps, args.tokens, {}, &Step::tokens);
  if (step == plan->steps.end()) return refuse(stream, "a product of matrices with more tokens than it was prepared for");
  return impl_->run(*plan, *step, args, workspace, stream);
}

}  // namespace lmkit::kernels::cuda
