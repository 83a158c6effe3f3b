// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: matrix products, the small ops between them, and sampling.
#include "bench_rows.hpp"

#include <lmkit/kernels/embedding.hpp>

#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace lmkit::cli {
namespace {

using kernels::Linear;

// A few numbers of [0, count), its ends among them.
std::vector<std::int64_t> some_of(std::int64_t count, std::int64_t most) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < std::min(count, most); ++i) out.push_back(count <= most ? i : i * (count - 1) / (most - 1));
  return out;
}

struct Product {
  std::string name;                    // "qkv"
  std::vector<std::string> matrices;   // names in the last layer, side by side
  std::function<const Linear&(int layer)> linear;
  std::byte* x;
  std::byte* y;
  Dtype out;
};

std::vector<Product> products_of_layer(BenchRig& rig) {
  const Activations& act = rig.activations();
  const Weights& weights = rig.weights();
  const Dtype dtype = rig.device().dtype();
  const auto names = [last = rig.config().layers - 1](std::initializer_list<const char*> parts) {
    std::vector<std::string> out;
    for (const char* part : parts) out.push_back(fmt::format("blk.{}.{}", last, part));
    return out;
  };
  return {{"qkv", names({"attn_q", "attn_k", "attn_v"}), [&](int i) -> const Linear& { return weights.layers[i].qkv; }, act.x, act.qkv, dtype},
          {"attention output", names({"attn_output"}), [&](int i) -> const Linear& { return weights.layers[i].attention_output; }, act.attended,
           act.residual, dtype},
          {"gate_up", names({"ffn_gate", "ffn_up"}), [&](int i) -> const Linear& { return weights.layers[i].gate_up; }, act.x, act.gate_up, dtype},
          {"down", names({"ffn_down"}), [&](int i) -> const Linear& { return weights.layers[i].down; }, act.activated, act.residual, dtype}};
}

Product output_product(BenchRig& rig) {
  const Activations& act = rig.activations();
  return {"output", {rig.config().tied_embeddings ? "token_embd" : "output"}, [&](int) -> const Linear& { return rig.weights().output; }, act.logit_x,
          reinterpret_cast<std::byte*>(act.my_logits.data()), Dtype::f32};
}

// Row r of the matrices side by side, and its bias.
std::pair<std::vector<float>, float> weights_of_row(const ModelFile& model, const Product& product, std::int64_t r) {
  for (const std::string& name : product.matrices) {
    const MatrixView matrix = *model.find(name + ".weight");
    if (r >= matrix.rows) {
      r -= matrix.rows;
      continue;
    }
    std::vector<float> row(static_cast<std::size_t>(matrix.cols));
    kernels::expand_row(matrix, r, row.data());
    float bias = 0;
    if (const auto biases = model.find(name + ".bias")) {
      std::vector<float> all(static_cast<std::size_t>(biases->cols));
      kernels::expand_row(*biases, 0, all.data());
      bias = all[static_cast<std::size_t>(r)];
    }
    return {row, bias};
  }
  return {};
}

Status multiply(BenchRig& rig, const Product& product, int layer, std::int64_t tokens) {
  return rig.device().linear(product.linear(layer), product.x, tokens, product.y, product.out, rig.activations().workspace);
}

// Of a few rows of y in the last layer, against float64 over the same x.
double error_of(BenchRig& rig, const Product& product, std::int64_t tokens) {
  const int last = rig.config().layers - 1;
  const Linear& linear = product.linear(last);
  const Dtype dtype = rig.device().dtype();
  rig.randomise(product.x, tokens * linear.cols, dtype);
  rig.run([&] { return multiply(rig, product, last, tokens); });
  RelativeError error;
  const auto rows = some_of(linear.rows, 48);
  std::vector<std::pair<std::vector<float>, float>> weights;
  for (const std::int64_t r : rows) weights.push_back(weights_of_row(rig.model(), product, r));
  for (const std::int64_t t : some_of(tokens, 3)) {
    const auto x = rig.values(product.x + t * linear.cols * size_of(dtype), linear.cols, dtype);
    const auto y = rig.values(product.y + t * linear.rows * size_of(product.out), linear.rows, product.out);
    for (std::size_t i = 0; i < rows.size(); ++i)
      error.add(y[static_cast<std::size_t>(rows[i])],
                std::inner_product(x.begin(), x.end(), weights[i].first.begin(), double{weights[i].second}, std::plus<>(),
                                   [](double a, double b) { return a * b; }));
  }
  return error.value();
}

double bytes_of(BenchRig& rig, const Product& product, std::int64_t tokens) {
  const Linear& linear = product.linear(0);
  std::vector<MatrixView> parts;
  for (const std::string& name : product.matrices) parts.push_back(*rig.model().find(name + ".weight"));
  return static_cast<double>(rig.device().packed_bytes(parts) + tokens * (linear.cols * size_of(rig.device().dtype()) + linear.rows * size_of(product.out)));
}

double flops_of(const Product& product, std::int64_t tokens) {
  const Linear& linear = product.linear(0);
  return 2.0 * static_cast<double>(tokens) * static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
}

}  // namespace

void bench_gemm(BenchJob job, const std::vector<std::int64_t>& tokens) {
  BenchRig& rig = job.rig;
  const double layers = rig.config().layers;
  std::vector<Product> products = products_of_layer(rig);
  const Product output = output_product(rig);
  const auto prepare = [&](const Product& product, std::int64_t most) {
    rig.device().prepare(product.linear(0), most, product.out, product.x, product.y, rig.activations().workspace);
  };
  for (const Product& product : products) prepare(product, tokens.back());
  prepare(output, std::min<std::int64_t>(tokens.back(), rig.limits().logit_rows));

  for (const std::int64_t count : tokens) {
    BenchRow sum{.what = "gemm layer", .tokens = count, .error = 0};
    for (const Product& product : products) {
      BenchRow row{.what = "gemm " + product.name, .tokens = count, .bytes = bytes_of(rig, product, count), .flops = flops_of(product, count)};
      row.touched = row.bytes * layers;
      row.error = error_of(rig, product, count);
      row.seconds = rig.seconds([&](int layer) { return multiply(rig, product, layer, count); }, job.repeats);
      sum.bytes += row.bytes, sum.flops += row.flops, sum.touched += row.touched;
      sum.error = std::max(*sum.error, *row.error);
      job.add(std::move(row));
    }
    sum.seconds = rig.seconds([&](int layer) {
      Status status = Status::ok;
      for (const Product& product : products) status = both(status, multiply(rig, product, layer, count));
      return status;
    }, job.repeats);
    job.add(std::move(sum));
    if (count > rig.limits().logit_rows) continue;
    BenchRow row{.what = "gemm output", .tokens = count, .bytes = bytes_of(rig, output, count), .flops = flops_of(output, count)};
    row.touched = row.bytes;
    row.error = error_of(rig, output, count);
    row.seconds = rig.seconds([&](int) { return multiply(rig, output, 0, count); }, job.repeats);
    job.add(std::move(row));
  }
}

// --- small ops

void bench_rows(BenchJob job, const std::vector<std::int64_t>& tokens) {
  BenchRig& rig = job.rig;
  kernels::Device& device = rig.device();
  const Activations& act = rig.activations();
  const ModelConfig& config = rig.config();
  const Dtype dtype = device.dtype();
  const std::int64_t hidden = config.hidden, ffn = config.ffn;
  const auto row_of = [&](const void* base, std::int64_t row, std::int64_t cols) {
    return rig.values(static_cast<const std::byte*>(base) + row * cols * size_of(dtype), cols, dtype);
  };
  const auto finish = [&](BenchRow row, const std::function<Status(int)>& call, double error) {
    row.touched = row.bytes;
    row.error = error;
    row.seconds = rig.seconds(call, job.repeats);
    job.add(std::move(row));
  };

  for (const std::int64_t count : tokens) {
    {
      rig.randomise(act.residual, count * hidden, dtype);
      const auto call = [&](int layer) { return device.rms_norm(act.residual, rig.weights().layers[layer].ffn_norm, act.x, count, hidden, config.rms_eps); };
      rig.run([&] { return call(0); });
      std::vector<float> weight(static_cast<std::size_t>(hidden));
      kernels::expand_row(*rig.model().find("blk.0.ffn_norm.weight"), 0, weight.data());
      RelativeError error;
      for (const std::int64_t t : some_of(count, 3)) {
        const auto x = row_of(act.residual, t, hidden), out = row_of(act.x, t, hidden);
        double squares = 0;
        for (const float value : x) squares += double{value} * value;
        const double scale = 1 / std::sqrt(squares / static_cast<double>(hidden) + config.rms_eps);
        for (std::size_t i = 0; i < x.size(); ++i) error.add(out[i], x[i] * scale * weight[i]);
      }
      finish({.what = "rms_norm", .tokens = count, .bytes = 2.0 * static_cast<double>(count * hidden) * size_of(dtype)}, call, error.value());
    }
    {
      rig.randomise(act.gate_up, count * 2 * ffn, dtype);
      const auto call = [&](int) { return device.silu_mul(act.gate_up, act.activated, count, ffn); };
      rig.run([&] { return call(0); });
      RelativeError error;
      for (const std::int64_t t : some_of(count, 3)) {
        const auto gate = row_of(act.gate_up, 2 * t, ffn), up = row_of(act.gate_up, 2 * t + 1, ffn), out = row_of(act.activated, t, ffn);
        for (std::size_t i = 0; i < out.size(); ++i) error.add(out[i], gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
      }
      finish({.what = "silu_mul", .tokens = count, .bytes = 3.0 * static_cast<double>(count * ffn) * size_of(dtype)}, call, error.value());
    }
    {
      StepPlan plan;
      plan.clear();
      for (std::int64_t t = 0; t < count; ++t)
        plan.tokens.push_back(static_cast<std::int32_t>(rig.random()() % static_cast<std::uint64_t>(config.vocabulary)));
      const std::vector<std::int32_t> ids = plan.tokens;
      rig.begin(std::move(plan));
      const MatrixView& table = rig.weights().embedding;
      const auto call = [&](int) { return device.embedding(table, rig.arrays().tokens, static_cast<std::int32_t>(count), act.residual); };
      rig.run([&] { return call(0); });
      RelativeError error;
      std::vector<float> expected(static_cast<std::size_t>(hidden));
      for (const std::int64_t t : some_of(count, 3)) {
        kernels::expand_row(*rig.model().find("token_embd.weight"), ids[static_cast<std::size_t>(t)], expected.data());
        const auto out = row_of(act.residual, t, hidden);
        for (std::size_t i = 0; i < out.size(); ++i) error.add(out[i], expected[i]);
      }
      const double row_bytes = static_cast<double>(MatrixView::packed_row_bytes(table.format, hidden) + hidden * size_of(dtype));
      finish({.what = "embedding", .tokens = count, .bytes = static_cast<double>(count) * row_bytes}, call, error.value());
    }
  }
}

// --- sampling

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
