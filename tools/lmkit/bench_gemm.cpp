// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: matrix products.
#include "bench_rows.hpp"

#include <lmkit/kernels/embedding.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace lmkit::cli {
namespace {

using kernels::Linear;

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

kernels::LinearArgs args_of(BenchRig& rig, const Product& product, std::int64_t tokens) {
  return {.x = product.x, .tokens = tokens, .y = product.y, .out = product.out, .workspace = rig.activations().workspace};
}

Status multiply(BenchRig& rig, const Product& product, int layer, std::int64_t tokens) {
  return rig.device().linear(product.linear(layer), args_of(rig, product, tokens));
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
    rig.device().prepare(product.linear(0), args_of(rig, product, most));
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

}  // namespace lmkit::cli
