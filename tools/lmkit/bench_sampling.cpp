// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: sampling, by the device's queue or, where there is none, by the engine's sampler.
#include "bench_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lmkit::cli {
namespace {

struct Way {
  const char* name;
  SamplingParams params;
};

// How far the log probability of the token is off, and 1 more if it may not be drawn.
double draw_error(std::span<const float> logits, const SamplingParams& params, TokenId token, float logprob) {
  if (token < 0 || token >= std::ssize(logits)) return 2;
  const float largest = *std::max_element(logits.begin(), logits.end()), drawn = logits[static_cast<std::size_t>(token)];
  double all = 0, above = 0;  // probabilities, times the same
  int rank = 0;
  for (const float logit : logits) {
    const double weight = std::exp(double{logit} - largest);
    all += weight;
    if (logit > drawn) above += weight, ++rank;
  }
  const bool allowed = (params.temperature > 0 || rank == 0) && (params.top_k == 0 || rank < params.top_k) && above / all <= params.top_p + 1e-4;
  return std::abs(logprob - (drawn - largest - std::log(all))) + (allowed ? 0 : 1);
}

}  // namespace

void bench_sampling(BenchJob job, const std::vector<std::int64_t>& counts) {
  BenchRig& rig = job.rig;
  const std::int64_t vocabulary = rig.config().vocabulary;
  const std::span<float> logits = rig.activations().logits;
  kernels::Queue* const queue = rig.device().queue();
  std::byte* const device_rows = queue ? rig.room().inputs.data() + StepInputs(rig.limits()).sample_rows : nullptr;
  std::vector<Sampler> samplers(static_cast<std::size_t>(rig.limits().threads));
  const Way ways[] = {{"greedy", {.temperature = 0}}, {"top-k 50", {.top_k = 50}}, {"top-p 0.9", {.top_p = 0.9f}}};

  for (const std::int64_t count : counts) {
    rig.randomise(logits.data(), count * vocabulary, Dtype::f32, 3);
    for (Way way : ways) {
      way.params.seed = rig.random()();
      const SamplerState state(way.params, {});
      std::vector<Choice> choices(static_cast<std::size_t>(count));
      if (queue) {
        std::vector<kernels::SampleRow> rows;
        for (std::int64_t i = 0; i < count; ++i)
          rows.push_back({.seed = state.seed(), .position = i, .temperature = way.params.temperature, .top_k = way.params.top_k, .top_p = way.params.top_p});
        rig.put(device_rows, rows.data(), static_cast<std::int64_t>(rows.size() * sizeof rows[0]));
      }
      const auto call = [&](int) {
        if (queue)
          return queue->sample(logits.data(), static_cast<std::int32_t>(count), vocabulary, reinterpret_cast<const kernels::SampleRow*>(device_rows),
                               rig.room().edits.data(), rig.room().sample_workspace);
        rig.threads().parallel_for(static_cast<std::int32_t>(count), [&](std::int32_t i, std::int32_t worker) {
          choices[i] = samplers[worker].choose(logits.subspan(static_cast<std::size_t>(i * vocabulary), vocabulary), way.params, state, i, 0);
        });
        return Status::ok;
      };
      BenchRow row{.what = fmt::format("sample {}", way.name), .tokens = count, .bytes = 4.0 * static_cast<double>(count * vocabulary)};
      row.touched = row.bytes;
      rig.run([&] { return call(0); });
      if (queue) {
        const auto drawn = rig.get(rig.room().drawn.data(), count * static_cast<std::int64_t>(sizeof(kernels::Sampled)));
        for (std::int64_t i = 0; i < count; ++i) {
          const auto& one = reinterpret_cast<const kernels::Sampled*>(drawn.data())[i];
          choices[i] = {.token = one.token, .logprob = one.logprob, .top = {}};
        }
      }
      row.error = 0;
      for (const std::int64_t i : some_of(count, 4)) {
        const auto values = rig.values(logits.data() + i * vocabulary, vocabulary, Dtype::f32);
        row.error = std::max(*row.error, draw_error(values, way.params, choices[i].token, choices[i].logprob));
      }
      row.seconds = rig.seconds(call, job.repeats);
      job.add(std::move(row));
    }
  }
}

}  // namespace lmkit::cli
