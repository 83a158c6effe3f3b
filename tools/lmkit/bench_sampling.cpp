// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: sampling, by the device's queue or, where there is none, by the engine's sampler.
#include "bench_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lmkit::cli {
namespace {

struct Way {
  const char* name;
  SamplingParams params;
};

// How far the log probability of the token is off, and 1 more if it may not be drawn.
double draw_error(std::span<const float> logits, const SamplingParams& params, const Choice& choice) {
  if (choice.token < 0 || choice.token >= std::ssize(logits)) return 2;
  const float largest = *std::max_element(logits.begin(), logits.end()), drawn = logits[static_cast<std::size_t>(choice.token)];
  double all = 0, above = 0;  // probabilities, times the same
  int rank = 0;
  for (const float logit : logits) {
    const double weight = std::exp(double{logit} - largest);
    all += weight;
    if (logit > drawn) above += weight, ++rank;
  }
  const bool allowed = (params.temperature > 0 || rank == 0) && (params.top_k == 0 || rank < params.top_k) && above / all <= params.top_p + 1e-4;
  return std::abs(choice.logprob - (drawn - largest - std::log(all))) + (allowed ? 0 : 1);
}

// One way to draw from each of the first `count` rows of logits.
class Drawing {
 public:
  Drawing(BenchRig& rig, const SamplingParams& params, std::int64_t count)
      : rig_(rig), params_(params), state_(params, {}), count_(count), samplers_(static_cast<std::size_t>(rig.limits().threads)),
        choices_(static_cast<std::size_t>(count)) {
    if (!rig.device().queue()) return;
    std::vector<kernels::SampleRow> rows;
    for (std::int64_t i = 0; i < count; ++i)
      rows.push_back({.seed = state_.seed(), .position = i, .temperature = params.temperature, .top_k = params.top_k, .top_p = params.top_p});
    device_rows_ = rig.room().inputs.data() + StepInputs(rig.limits()).sample_rows;
    rig.put(device_rows_, rows.data(), static_cast<std::int64_t>(rows.size() * sizeof rows[0]));
  }

  Status draw() {
    const std::span<float> logits = rig_.activations().logits;
    const std::int64_t vocabulary = rig_.config().vocabulary;
    if (kernels::Queue* const queue = rig_.device().queue())
      return queue->sample(logits.data(), static_cast<std::int32_t>(count_), vocabulary, reinterpret_cast<const kernels::SampleRow*>(device_rows_),
                           rig_.room().edits.data(), rig_.room().sample_workspace);
    rig_.threads().parallel_for(static_cast<std::int32_t>(count_), [&](std::int32_t i, std::int32_t worker) {
      choices_[i] = samplers_[worker].choose(logits.subspan(static_cast<std::size_t>(i * vocabulary), vocabulary), params_, state_, i, 0);
    });
    return Status::ok;
  }

  // What the last draw() drew for a row.
  Choice choice(std::int64_t row) {
    if (!rig_.device().queue()) return choices_[static_cast<std::size_t>(row)];
    kernels::Sampled drawn;
    std::memcpy(&drawn, rig_.get(rig_.room().drawn.data() + row, sizeof drawn).data(), sizeof drawn);
    return {.token = drawn.token, .logprob = drawn.logprob, .top = {}};
  }

  double error() {
    const std::int64_t vocabulary = rig_.config().vocabulary;
    double largest = 0;
    for (const std::int64_t row : some_of(count_, 4)) {
      const auto logits = rig_.values(rig_.activations().logits.data() + row * vocabulary, vocabulary, Dtype::f32);
      largest = std::max(largest, draw_error(logits, params_, choice(row)));
    }
    return largest;
  }

 private:
  BenchRig& rig_;
  const SamplingParams& params_;
  SamplerState state_;
  std::int64_t count_;
  std::byte* device_rows_ = nullptr;  // (count) where the device has a queue
  std::vector<Sampler> samplers_;     // otherwise, one for each thread
  std::vector<Choice> choices_;
};

}  // namespace

void bench_sampling(BenchJob job, const std::vector<std::int64_t>& counts) {
  BenchRig& rig = job.rig;
  const Way ways[] = {{"greedy", {.temperature = 0}}, {"top-k 50", {.top_k = 50}}, {"top-p 0.9", {.top_p = 0.9f}}};
  for (const std::int64_t count : counts) {
    const std::int64_t values = count * rig.config().vocabulary;
    rig.randomise(rig.activations().logits.data(), values, Dtype::f32, 3);
    for (Way way : ways) {
      way.params.seed = rig.random()();
      Drawing drawing(rig, way.params, count);
      const auto call = [&](int) { return drawing.draw(); };
      rig.run([&] { return call(0); });
      BenchRow row{.what = fmt::format("sample {}", way.name), .tokens = count, .bytes = 4.0 * static_cast<double>(values)};
      row.touched = row.bytes;
      row.error = drawing.error();
      row.seconds = rig.seconds(call, job.repeats);
      job.add(std::move(row));
    }
  }
}

}  // namespace lmkit::cli
