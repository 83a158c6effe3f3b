// SPDX-License-Identifier: Apache-2.0
//
// Step: everything one rank needs to run one StepPlan, and the building blocks that an architecture's forward() is
// written with. Dense arrays are row-major, of the device's dtype; `tokens` is the step's number of tokens.
//
// A failure is remembered in `status` and the rank goes on: it still takes part in every collective, so that the other
// ranks are not left waiting. The step's numbers are then worthless and the engine throws them away.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/concepts/parallel_strategy.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/model/model_config.hpp>
#include <lmkit/model/step_plan.hpp>
#include <lmkit/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <span>

namespace lmkit {

// Room for the largest step. qkv and attended share their place with gate_up and activated: never alive together.
struct Activations {
  std::byte* residual = nullptr;   // (tokens, hidden)
  std::byte* x = nullptr;          // (tokens, hidden)
  std::byte* qkv = nullptr;        // (tokens, query_heads + 2 kv_heads, head_dim)
  std::byte* attended = nullptr;   // (tokens, query_heads, head_dim)
  std::byte* gate_up = nullptr;    // (tokens, 2, ffn)
  std::byte* activated = nullptr;  // (tokens, ffn)
  std::byte* logit_x = nullptr;    // (logit rows, hidden)
  std::span<float> my_logits;      // (logit rows, local vocabulary)
  std::span<float> logits;         // (logit rows, vocabulary); the same as my_logits where one rank has all
  std::byte* workspace = nullptr;  // of linear
  std::byte* kv_workspace = nullptr;
};

// A StepPlan's arrays where the device reads them.
struct StepArrays {
  const std::int32_t* tokens = nullptr;
  const std::int32_t* token_sequence = nullptr;
  const std::int32_t* query_starts = nullptr;
  const std::int32_t* kv_lengths = nullptr;
  const std::int32_t* block_tables = nullptr;
  std::int64_t block_table_stride = 0;
  const std::int32_t* logit_rows = nullptr;
};

struct KvPool {
  std::byte* base = nullptr;
  std::int64_t block_stride = 0;  // bytes of a block, all layers
  std::int64_t layer_stride = 0;  // bytes of one layer's part
};

template <ParallelStrategy P, KvBackend K>
struct Step {
  const ModelConfig& config;
  const RankShape& shape;
  const Weights& weights;
  const float* rope_table;  // (positions, rotary_dim / 2, 2)
  std::span<const std::int64_t> vocabulary_shards;  // rows of the output matrix on each rank
  const Activations& act;
  KvPool pool;
  P& parallel;
  K& kv;
  kernels::Device& device;
  const StepPlan& plan;      // sizes; the numbers themselves are in
  const StepArrays& arrays;
  Status status = Status::ok;

  int tokens() const noexcept { return plan.size(); }
  int qkv_width() const noexcept { return (shape.query_heads() + 2 * shape.kv_heads()) * config.head_dim; }
  void check(Status outcome) noexcept {
    if (status == Status::ok) status = outcome;
  }
};

template <class S>
void embed(S& s) noexcept {
  s.check(s.device.embedding(s.weights.embedding, s.arrays.tokens, s.tokens(), s.act.residual));
}

// The products of a step: what a device is prepared for, and what forward() asks of it.
struct Products {
  const Activations& act;
  std::int64_t tokens;
  Dtype dtype;
  float eps;

  // y = norm(residual) times a matrix
  kernels::LinearArgs normed(const void* norm, std::byte* y) const noexcept {
    return {.x = act.residual, .tokens = tokens, .y = y, .out = dtype, .norm = norm, .eps = eps, .x_scratch = act.x, .workspace = act.workspace};
  }
  // activated = silu(gate) * up, where gate and up are norm(residual) times theirs
  kernels::LinearArgs gated(const void* norm) const noexcept {
    kernels::LinearArgs args = normed(norm, act.activated);
    args.end = kernels::LinearEnd::gate;
    args.y_scratch = act.gate_up;
    return args;
  }
  // residual += x times a matrix
  kernels::LinearArgs added(const std::byte* x) const noexcept {
    kernels::LinearArgs args = partial(x);
    args.y = act.residual, args.y_scratch = act.x;
    args.end = kernels::LinearEnd::add;
    return args;
  }
  // act.x = x times a rank's part of a matrix
  kernels::LinearArgs partial(const std::byte* x) const noexcept {
    return {.x = x, .tokens = tokens, .y = act.x, .out = dtype, .workspace = act.workspace};
  }
  // my_logits = norm(logit_x) times a matrix; tokens: logit rows
  kernels::LinearArgs logits(const void* norm) const noexcept {
    return {.x = act.logit_x, .tokens = tokens, .y = act.my_logits.data(), .norm = norm, .eps = eps, .x_scratch = act.logit_x, .workspace = act.workspace};
  }
};

template <class S>
Products products_of(const S& s, std::int64_t tokens) noexcept {
  return {s.act, tokens, s.device.dtype(), s.config.rms_eps};
}

// y (tokens, linear.rows) = norm(residual) times linear
template <class S>
void norm_linear(S& s, const void* norm, const kernels::Linear& linear, std::byte* y) noexcept {
  s.check(s.device.linear(linear, products_of(s, s.tokens()).normed(norm, y)));
}

// activated = silu(gate) * up of norm(residual)
template <class S>
void norm_gated_linear(S& s, const void* norm, const kernels::Linear& gate_up) noexcept {
  s.check(s.device.linear(gate_up, products_of(s, s.tokens()).gated(norm)));
}

// residual += x (tokens, linear.cols) times linear, over all ranks. Several ranks are on CPUs, whose dtype is float.
template <class S>
void add_linear(S& s, const kernels::Linear& linear, const std::byte* x) noexcept {
  const Products products = products_of(s, s.tokens());
  if (s.parallel.size() == 1) return s.check(s.device.linear(linear, products.added(x)));
  s.check(s.device.linear(linear, products.partial(x)));
  const std::span parts(reinterpret_cast<float*>(s.act.x), static_cast<std::size_t>(s.tokens()) * s.config.hidden);
  s.check(s.parallel.all_reduce_sum(parts, s.device.stream()));
  s.check(s.device.add(s.act.residual, s.act.x, s.tokens(), s.config.hidden));
}

template <class S>
KvPages pages_of(const S& s, int layer) noexcept {
  return {.struct_size = sizeof(KvPages),
          .sequences = s.plan.sequences(),
          .base = s.pool.base,
          .block_stride = s.pool.block_stride,
          .layer_offset = layer * s.pool.layer_stride,
          .block_tables = s.arrays.block_tables,
          .block_table_stride = s.arrays.block_table_stride,
          .query_starts = s.arrays.query_starts,
          .kv_lengths = s.arrays.kv_lengths,
          .token_sequence = s.arrays.token_sequence};
}

// Normalises the heads of q and k, where the architecture does.
template <class S>
void norm_heads(S& s, const void* weight) noexcept {
  if (!weight) return;
  const int heads = s.shape.query_heads() + s.shape.kv_heads();
  s.check(s.device.norm_heads(s.act.qkv, s.qkv_width(), weight, s.tokens(), heads, s.config.head_dim, s.config.rms_eps));
}

// Rotates q and k, stores k and v in the pages.
template <class S>
void append(S& s, int layer) noexcept {
  const std::int64_t head_bytes = std::int64_t{s.config.head_dim} * size_of(s.device.dtype());
  std::byte* const q = s.act.qkv;
  std::byte* const k = q + s.shape.query_heads() * head_bytes;
  std::byte* const v = k + s.shape.kv_heads() * head_bytes;
  const KvAppend args{.struct_size = sizeof(KvAppend),
                      .tokens = s.tokens(),
                      .q = q,
                      .k = k,
                      .v = v,
                      .q_stride = s.qkv_width(),
                      .kv_stride = s.qkv_width(),
                      .rope_pairs = s.config.rope.pairs,
                      .rotary_dim = s.config.rope.rotary_dim,
                      .rope_table = s.rope_table,
                      .pages = pages_of(s, layer),
                      .workspace = s.act.kv_workspace};
  s.check(s.kv.append(args, s.device.stream()));
}

template <class S>
void attend(S& s, int layer) noexcept {
  int most_new = 0;
  for (int i = 0; i < s.plan.sequences(); ++i) most_new = std::max(most_new, s.plan.query_starts[i + 1] - s.plan.query_starts[i]);
  const KvAttend args{.struct_size = sizeof(KvAttend),
                      .tokens = s.tokens(),
                      .q = s.act.qkv,
                      .out = s.act.attended,
                      .q_stride = s.qkv_width(),
                      .out_stride = s.shape.query_heads() * s.config.head_dim,
                      .scale = 1.0f / std::sqrt(static_cast<float>(s.config.head_dim)),
                      .soft_cap = 0,
                      .window = s.config.window_of(layer),
                      .max_query_tokens = most_new,
                      .max_kv_length = *std::max_element(s.plan.kv_lengths.begin(), s.plan.kv_lengths.end()),
                      .pages = pages_of(s, layer),
                      .workspace = s.act.kv_workspace};
  s.check(s.kv.attend(args, s.device.stream()));
}

// logits (logit rows, vocabulary) of the tokens that want them
template <class S>
void project_logits(S& s) noexcept {
  const auto rows = static_cast<std::int32_t>(s.plan.logit_rows.size());
  if (rows == 0) return;
  const kernels::Linear& output = s.weights.output;
  s.check(s.device.gather_rows(s.act.residual, s.arrays.logit_rows, rows, s.config.hidden, s.act.logit_x));
  s.check(s.device.linear(output, products_of(s, rows).logits(s.weights.output_norm)));
  s.check(s.parallel.all_gather(s.act.my_logits.first(static_cast<std::size_t>(rows * output.rows)),
                                s.act.logits.first(static_cast<std::size_t>(rows) * s.config.vocabulary), rows, s.vocabulary_shards,
                                s.device.stream()));
}

}  // namespace lmkit
