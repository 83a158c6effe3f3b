// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: what lies between matrix products and attention.
#include "bench_rows.hpp"

#include <lmkit/kernels/embedding.hpp>

#include <cmath>
#include <numeric>

namespace lmkit::cli {
namespace {

// Row `row` of `cols` values of the device's dtype.
std::vector<float> row_of(BenchRig& rig, const void* base, std::int64_t row, std::int64_t cols) {
  const Dtype dtype = rig.device().dtype();
  return rig.values(static_cast<const std::byte*>(base) + row * cols * size_of(dtype), cols, dtype);
}

void finish(BenchJob& job, BenchRow row, double error, const std::function<Status(int layer)>& call) {
  row.touched = row.bytes;
  row.error = error;
  row.seconds = job.rig.seconds(call, job.repeats);
  job.add(std::move(row));
}

void bench_norm(BenchJob& job, std::int64_t count) {
  BenchRig& rig = job.rig;
  const Activations& act = rig.activations();
  const Dtype dtype = rig.device().dtype();
  const std::int64_t hidden = rig.config().hidden, last = count - 1;
  rig.randomise(act.residual, count * hidden, dtype);
  const auto call = [&](int layer) {
    return rig.device().rms_norm(act.residual, rig.weights().layers[layer].ffn_norm, act.x, count, hidden, rig.config().rms_eps);
  };
  rig.run([&] { return call(0); });
  const auto x = row_of(rig, act.residual, last, hidden), out = row_of(rig, act.x, last, hidden);
  std::vector<float> weight(x.size());
  kernels::expand_row(*rig.model().find("blk.0.ffn_norm.weight"), 0, weight.data());
  const double squares = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
  const double scale = 1 / std::sqrt(squares / static_cast<double>(hidden) + rig.config().rms_eps);
  RelativeError error;
  for (std::size_t i = 0; i < x.size(); ++i) error.add(out[i], x[i] * scale * weight[i]);
  finish(job, {.what = "rms_norm", .tokens = count, .bytes = 2.0 * static_cast<double>(count * hidden) * size_of(dtype)}, error.value(), call);
}

void bench_add(BenchJob& job, std::int64_t count) {
  BenchRig& rig = job.rig;
  const Activations& act = rig.activations();
  const Dtype dtype = rig.device().dtype();
  const std::int64_t hidden = rig.config().hidden, last = count - 1;
  rig.randomise(act.residual, count * hidden, dtype);
  rig.randomise(act.x, count * hidden, dtype);
  const auto before = row_of(rig, act.residual, last, hidden), x = row_of(rig, act.x, last, hidden);
  const auto call = [&](int) { return rig.device().add(act.residual, act.x, count, hidden); };
  rig.run([&] { return call(0); });
  const auto sum = row_of(rig, act.residual, last, hidden);
  RelativeError error;
  for (std::size_t i = 0; i < x.size(); ++i) error.add(sum[i], double{before[i]} + double{x[i]});
  finish(job, {.what = "add", .tokens = count, .bytes = 3.0 * static_cast<double>(count * hidden) * size_of(dtype)}, error.value(), call);
}

void bench_silu_mul(BenchJob& job, std::int64_t count) {
  BenchRig& rig = job.rig;
  const Activations& act = rig.activations();
  const Dtype dtype = rig.device().dtype();
  const std::int64_t ffn = rig.config().ffn;
  rig.randomise(act.gate_up, count * 2 * ffn, dtype);
  const auto call = [&](int) { return rig.device().silu_mul(act.gate_up, act.activated, count, ffn); };
  rig.run([&] { return call(0); });
  RelativeError error;
  for (const std::int64_t t : some_of(count, 3)) {
    const auto gate = row_of(rig, act.gate_up, 2 * t, ffn), up = row_of(rig, act.gate_up, 2 * t + 1, ffn), out = row_of(rig, act.activated, t, ffn);
    for (std::size_t i = 0; i < out.size(); ++i) error.add(out[i], gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
  }
  finish(job, {.what = "silu_mul", .tokens = count, .bytes = 3.0 * static_cast<double>(count * ffn) * size_of(dtype)}, error.value(), call);
}

void bench_embedding(BenchJob& job, std::int64_t count) {
  BenchRig& rig = job.rig;
  const ModelConfig& config = rig.config();
  const MatrixView& table = rig.weights().embedding;
  void* const rows = rig.activations().residual;
  StepPlan plan;
  plan.clear();
  for (std::int64_t t = 0; t < count; ++t)
    plan.tokens.push_back(static_cast<std::int32_t>(rig.random()() % static_cast<std::uint64_t>(config.vocabulary)));
  const std::vector<std::int32_t> tokens = plan.tokens;
  rig.begin(std::move(plan));
  const auto call = [&](int) { return rig.device().embedding(table, rig.arrays().tokens, static_cast<std::int32_t>(count), rows); };
  rig.run([&] { return call(0); });
  RelativeError error;
  std::vector<float> expected(static_cast<std::size_t>(config.hidden));
  for (const std::int64_t t : some_of(count, 3)) {
    kernels::expand_row(*rig.model().find("token_embd.weight"), tokens[static_cast<std::size_t>(t)], expected.data());
    const auto out = row_of(rig, rows, t, config.hidden);
    for (std::size_t i = 0; i < out.size(); ++i) error.add(out[i], expected[i]);
  }
  const std::int64_t row_bytes = MatrixView::packed_row_bytes(table.format, config.hidden) + config.hidden * size_of(rig.device().dtype());
  finish(job, {.what = "embedding", .tokens = count, .bytes = static_cast<double>(count * row_bytes)}, error.value(), call);
}

}  // namespace

void bench_small_ops(BenchJob job, const std::vector<std::int64_t>& tokens) {
  for (const std::int64_t count : tokens) {
    bench_norm(job, count);
    bench_add(job, count);
    bench_silu_mul(job, count);
    bench_embedding(job, count);
  }
}

}  // namespace lmkit::cli
