// SPDX-License-Identifier: Apache-2.0
//
// Step: everything one rank needs to run one StepPlan, and the building blocks that an architecture's forward() is
// written with. Dense arrays are row-major floats; `tokens` is the step's number of tokens.
//
// A failure is remembered in `status` and the rank goes on: it still takes part in every collective, so that the other
// ranks are not left waiting. The step's numbers are then worthless and the engine throws them away.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/concepts/parallel_strategy.hpp>
#include <lmkit/kernels/activation.hpp>
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/gemm.hpp>
#include <lmkit/kernels/rms_norm.hpp>
#include <lmkit/model/model_config.hpp>
#include <lmkit/model/step_plan.hpp>
#include <lmkit/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace lmkit {

// Room for the largest step. qkv and attended share their place with gate_up and activated: never alive together.
struct Activations {
  std::span<float> residual;   // (tokens, hidden)
  std::span<float> x;          // (tokens, hidden)
  std::span<float> qkv;        // (tokens, query_heads + 2 kv_heads, head_dim)
  std::span<float> attended;   // (tokens, query_heads, head_dim)
  std::span<float> gate_up;    // (tokens, 2, ffn)
  std::span<float> activated;  // (tokens, ffn)
  std::span<float> logit_x;    // (logit rows, hidden)
  std::span<float> my_logits;  // (logit rows, local vocabulary)
  std::span<float> logits;     // (logit rows, vocabulary); the same as my_logits where one rank has all
  std::span<std::byte> gemm_workspace;
  std::span<std::byte> kv_workspace;
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
  Stream stream;
  const StepPlan& plan;
  Status status = Status::ok;

  int tokens() const noexcept { return plan.size(); }
  int qkv_width() const noexcept { return (shape.query_heads() + 2 * shape.kv_heads()) * config.head_dim; }
  void check(Status outcome) noexcept {
    if (status == Status::ok) status = outcome;
  }
};

template <class S>
void embed(S& s) noexcept {
  kernels::embedding(s.weights.embedding, s.plan.tokens.data(), s.tokens(), s.act.residual.data(), s.stream);
}

template <class S>
void norm(S& s, const float* weight) noexcept {
  kernels::rms_norm(s.act.residual.data(), weight, s.act.x.data(), s.tokens(), s.config.hidden, s.config.rms_eps, s.stream);
}

// residual += x, x = norm(residual)
template <class S>
void add_norm(S& s, const float* weight) noexcept {
  kernels::add_rms_norm(s.act.residual.data(), s.act.x.data(), weight, s.act.x.data(), s.tokens(), s.config.hidden, s.config.rms_eps,
                        s.stream);
}

// out (rows, sum of the parts' rows) = x (rows, in) times the parts
template <class S>
void linear(S& s, std::span<const kernels::PackedMatrix> parts, std::span<const float> x, std::int64_t in, std::span<float> out,
            std::int64_t out_width, std::int64_t rows) noexcept {
  if (in == 0) {  // this rank holds no column: it adds nothing to the sum
    std::memset(out.data(), 0, static_cast<std::size_t>(rows * out_width) * sizeof(float));
  } else if (out_width > 0 && rows > 0) {
    kernels::gemm(parts, x.data(), in, rows, out.data(), out_width, s.act.gemm_workspace.data(), s.stream);
  }
}

template <class S>
KvPages pages_of(const S& s, int layer) noexcept {
  return {.struct_size = sizeof(KvPages),
          .sequences = s.plan.sequences(),
          .base = s.pool.base,
          .block_stride = s.pool.block_stride,
          .layer_offset = layer * s.pool.layer_stride,
          .block_tables = s.plan.block_tables.data(),
          .block_table_stride = s.plan.block_table_stride,
          .query_starts = s.plan.query_starts.data(),
          .kv_lengths = s.plan.kv_lengths.data(),
          .token_sequence = s.plan.token_sequence.data()};
}

// Rotates q and k, stores k and v in the pages.
template <class S>
void append(S& s, int layer) noexcept {
  float* const q = s.act.qkv.data();
  const int queries = s.shape.query_heads() * s.config.head_dim;
  const int keys = s.shape.kv_heads() * s.config.head_dim;
  const KvAppend args{.struct_size = sizeof(KvAppend),
                      .tokens = s.tokens(),
                      .q = q,
                      .k = q + queries,
                      .v = q + queries + keys,
                      .q_stride = s.qkv_width(),
                      .kv_stride = s.qkv_width(),
                      .rope_pairs = s.config.rope.pairs,
                      .rotary_dim = s.config.rope.rotary_dim,
                      .rope_table = s.rope_table,
                      .pages = pages_of(s, layer),
                      .workspace = s.act.kv_workspace.data()};
  s.check(s.kv.append(args, s.stream));
}

template <class S>
void attend(S& s, int layer) noexcept {
  int most_new = 0;
  for (int i = 0; i < s.plan.sequences(); ++i) most_new = std::max(most_new, s.plan.query_starts[i + 1] - s.plan.query_starts[i]);
  const KvAttend args{.struct_size = sizeof(KvAttend),
                      .tokens = s.tokens(),
                      .q = s.act.qkv.data(),
                      .out = s.act.attended.data(),
                      .q_stride = s.qkv_width(),
                      .out_stride = s.shape.query_heads() * s.config.head_dim,
                      .scale = 1.0f / std::sqrt(static_cast<float>(s.config.head_dim)),
                      .soft_cap = 0,
                      .window = s.config.window,
                      .max_query_tokens = most_new,
                      .max_kv_length = *std::max_element(s.plan.kv_lengths.begin(), s.plan.kv_lengths.end()),
                      .pages = pages_of(s, layer),
                      .workspace = s.act.kv_workspace.data()};
  s.check(s.kv.attend(args, s.stream));
}

// x = sum over ranks of x
template <class S>
void sum(S& s) noexcept {
  s.check(s.parallel.all_reduce_sum(s.act.x.first(static_cast<std::size_t>(s.tokens()) * s.config.hidden), s.stream));
}

// logits (logit rows, vocabulary) of the rows of x that want them
template <class S>
void project_logits(S& s) noexcept {
  const auto rows = static_cast<std::int64_t>(s.plan.logit_rows.size());
  if (rows == 0) return;
  const std::int64_t hidden = s.config.hidden, mine = s.shape.vocabulary();
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy_n(s.act.x.data() + s.plan.logit_rows[i] * hidden, hidden, s.act.logit_x.data() + i * hidden);
  }
  linear(s, {&s.weights.output, 1}, s.act.logit_x, hidden, s.act.my_logits, mine, rows);
  s.check(s.parallel.all_gather(s.act.my_logits.first(static_cast<std::size_t>(rows * mine)),
                                s.act.logits.first(static_cast<std::size_t>(rows) * s.config.vocabulary), rows, s.vocabulary_shards,
                                s.stream));
}

}  // namespace lmkit
