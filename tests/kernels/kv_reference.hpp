// SPDX-License-Identifier: Apache-2.0
//
// What append and attend must compute, written for clarity: one sequence at a time, dense keys and values, in double.
// The kernels share nothing with it.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/base/half.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/concepts/kv_backend.hpp>

#include <catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace kv_test {

using namespace lmkit;
using Head = std::vector<double>;

inline std::uint32_t fresh_seed() {
  const std::uint32_t seed = std::random_device{}();
  return seed;
}

struct Problem {
  KvShape shape{};
  int rope_pairs = LMKIT_ROPE_ADJACENT;
  int rotary_dim = 0;
  float scale = 0.125f;
  float soft_cap = 0;
  int window = 0;
  std::vector<int> lengths;  // tokens of each sequence
};

inline KvShape shape_of(int query_heads, int kv_heads, int head_dim, int group_offset = 0, int group_size = 0) {
  return {.struct_size = sizeof(KvShape), .device = LMKIT_CPU, .dtype = LMKIT_F32, .query_heads = query_heads, .kv_heads = kv_heads,
          .group_size = group_size ? group_size : query_heads / kv_heads, .group_offset = group_offset, .head_dim = head_dim, .block_tokens = 64};
}

// q, k, v of every sequence and position, before RoPE.
struct Inputs {
  std::vector<std::vector<float>> q, k, v;  // per sequence: (length, heads, head_dim)

  Inputs(const Problem& p, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<std::vector<float>>& to, int heads) {
      for (int length : p.lengths) {
        auto& x = to.emplace_back(static_cast<std::size_t>(length) * heads * p.shape.head_dim);
        for (float& f : x) f = normal(random);
      }
    };
    fill(q, p.shape.query_heads);
    fill(k, p.shape.kv_heads);
    fill(v, p.shape.kv_heads);
  }
};

inline std::vector<float> rope_table(int positions, int rotary_dim) {
  std::vector<float> table;
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < rotary_dim / 2; ++i) {
      const double angle = p * std::pow(10000., -2. * i / rotary_dim);
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  return table;
}

inline Head roped(const float* x, int head_dim, int position, const Problem& p, const std::vector<float>& table) {
  Head y(x, x + head_dim);
  for (int i = 0; i < p.rotary_dim / 2; ++i) {
    const double c = table[(static_cast<std::size_t>(position) * p.rotary_dim / 2 + i) * 2], s = table[(static_cast<std::size_t>(position) * p.rotary_dim / 2 + i) * 2 + 1];
    const int a = p.rope_pairs == LMKIT_ROPE_ADJACENT ? 2 * i : i;
    const int b = p.rope_pairs == LMKIT_ROPE_ADJACENT ? 2 * i + 1 : i + p.rotary_dim / 2;
    y[a] = x[a] * c - x[b] * s;
    y[b] = x[a] * s + x[b] * c;
  }
  return y;
}

struct Place {
  int sequence, position, kv_head;
  bool key;  // or value
};

// What the cache holds in place of a head: of keys after RoPE, of values.
using Rounding = std::function<Head(Head, Place)>;

inline Head half_rounding(Head x, Place) {
  for (double& d : x) d = to_float(to_half(static_cast<float>(d)));
  return x;
}

// Hadamard matrix by definition: H[i][j] = (-1)^popcount(i & j) / sqrt(n), over runs of the largest power of two in n.
inline Head hadamard(const Head& x) {
  const int n = static_cast<int>(x.size()), run = n & -n;
  Head y(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < run; ++j) y[i] += (__builtin_popcount((i % run) & j) % 2 ? -1 : 1) * x[i / run * run + j] / std::sqrt(run);
  return y;
}

// out of every sequence: (length, query_heads, head_dim)
inline std::vector<std::vector<double>> reference(const Problem& p, const Inputs& in, const Rounding& rounding) {
  const int dim = p.shape.head_dim, heads = p.shape.query_heads, kv_heads = p.shape.kv_heads;
  const auto table = rope_table(*std::max_element(p.lengths.begin(), p.lengths.end()), p.rotary_dim);
  std::vector<std::vector<double>> out;
  for (std::size_t s = 0; s < p.lengths.size(); ++s) {
    const int length = p.lengths[s];
    std::vector<Head> keys, values;  // (length, kv_heads)
    for (int t = 0; t < length; ++t)
      for (int j = 0; j < kv_heads; ++j) {
        const std::size_t at = (static_cast<std::size_t>(t) * kv_heads + j) * dim;
        keys.push_back(rounding(roped(&in.k[s][at], dim, t, p, table), {static_cast<int>(s), t, j, true}));
        values.push_back(rounding(Head(&in.v[s][at], &in.v[s][at] + dim), {static_cast<int>(s), t, j, false}));
      }
    auto& o = out.emplace_back(static_cast<std::size_t>(length) * heads * dim);
    for (int t = 0; t < length; ++t)
      for (int h = 0; h < heads; ++h) {
        const int j = (h + p.shape.group_offset) / p.shape.group_size;
        const std::size_t at = (static_cast<std::size_t>(t) * heads + h) * dim;
        const Head q = roped(&in.q[s][at], dim, t, p, table);
        std::vector<double> weight;
        const int first = p.window ? std::max(0, t - p.window + 1) : 0;
        for (int u = first; u <= t; ++u) {
          double score = p.scale * std::inner_product(q.begin(), q.end(), keys[u * kv_heads + j].begin(), 0.);
          if (p.soft_cap > 0) score = p.soft_cap * std::tanh(score / p.soft_cap);
          weight.push_back(score);
        }
        const double peak = *std::max_element(weight.begin(), weight.end());
        double total = 0;
        for (double& w : weight) total += w = std::exp(w - peak);
        for (int u = first; u <= t; ++u)
          for (int d = 0; d < dim; ++d) o[at + d] += weight[u - first] / total * values[u * kv_heads + j][d];
      }
  }
  return out;
}

// A pool of pages for one layer, filled with NaN-like garbage, and the steps that feed it.
template <class Backend>
class Cache {
 public:
  Cache(const Problem& p, Backend& backend, int workers, std::uint32_t seed, int max_tokens = 4096)
      : problem_(p), backend_(backend), pool_(workers), workers_(workers) {
    const int context = *std::max_element(p.lengths.begin(), p.lengths.end());
    per_sequence_ = (context + 63) / 64;
    const int blocks = per_sequence_ * static_cast<int>(p.lengths.size()) + 3;
    layer_offset_ = 128;
    stride_ = layer_offset_ + backend.block_bytes() + 64;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<std::size_t>(blocks * stride_))));
    std::memset(memory_.get(), 0xff, static_cast<std::size_t>(blocks * stride_));  // 0xffff is a NaN in half, bfloat16 and float
    table_.resize(blocks);
    std::iota(table_.begin(), table_.end(), 0);
    std::mt19937 random(seed);
    std::shuffle(table_.begin(), table_.end(), random);
    const KvLimits limits{.struct_size = sizeof(KvLimits), .max_tokens = max_tokens, .max_sequences = static_cast<int>(p.lengths.size()),
                          .max_context = context, .workers = workers};
    workspace_bytes_ = backend.workspace_bytes(limits);
    workspace_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<std::size_t>((workspace_bytes_ + 128) / 64 * 64))));
    std::memset(workspace_.get(), 0xff, static_cast<std::size_t>(workspace_bytes_));
    rope_ = rope_table(context, p.rotary_dim);
    done_.assign(p.lengths.size(), 0);
    for (int length : p.lengths) out_.emplace_back(static_cast<std::size_t>(length) * p.shape.query_heads * p.shape.head_dim, NAN);
  }

  // One step: counts[s] new tokens of sequence s.
  void step(const Inputs& in, const std::vector<int>& counts) {
    const KvShape& shape = problem_.shape;
    const int dim = shape.head_dim, q_row = shape.query_heads * dim + 16, kv_row = shape.kv_heads * dim + 16;
    std::vector<int> starts{0}, lengths, owner;
    std::vector<std::int32_t> tables;
    std::vector<float> q, k, v;
    std::vector<std::size_t> active;
    const auto append = [&](std::vector<float>& to, const std::vector<float>& from, int token, int row, int padded) {
      to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(token) * row, from.begin() + static_cast<std::ptrdiff_t>(token + 1) * row);
      to.insert(to.end(), padded - row, NAN);
    };
    int longest = 0, most_tokens = 0;
    for (std::size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      for (int t = done_[s]; t < done_[s] + counts[s]; ++t) {
        append(q, in.q[s], t, q_row - 16, q_row);
        append(k, in.k[s], t, kv_row - 16, kv_row);
        append(v, in.v[s], t, kv_row - 16, kv_row);
        owner.push_back(static_cast<int>(active.size()));
      }
      active.push_back(s);
      starts.push_back(starts.back() + counts[s]);
      lengths.push_back(done_[s] + counts[s]);
      longest = std::max(longest, lengths.back());
      most_tokens = std::max(most_tokens, counts[s]);
      tables.insert(tables.end(), table_.begin() + static_cast<std::ptrdiff_t>(s) * per_sequence_,
                    table_.begin() + static_cast<std::ptrdiff_t>(s + 1) * per_sequence_);
    }
    const int tokens = starts.back();
    std::vector<float> out(static_cast<std::size_t>(tokens) * q_row, NAN);
    const KvPages pages{.struct_size = sizeof(KvPages), .sequences = static_cast<int>(active.size()), .base = memory_.get(), .block_stride = stride_,
                        .layer_offset = layer_offset_, .block_tables = tables.data(), .block_table_stride = per_sequence_,
                        .query_starts = starts.data(), .kv_lengths = lengths.data(), .token_sequence = owner.data()};
    const KvAppend append_args{.struct_size = sizeof(KvAppend), .tokens = tokens, .q = q.data(), .k = k.data(), .v = v.data(), .q_stride = q_row,
                               .kv_stride = kv_row, .rope_pairs = problem_.rope_pairs, .rotary_dim = problem_.rotary_dim,
                               .rope_table = rope_.data(), .pages = pages, .workspace = workspace_.get()};
    REQUIRE(backend_.append(append_args, pool_.stream()) == Status::ok);
    const KvAttend attend_args{.struct_size = sizeof(KvAttend), .tokens = tokens, .q = q.data(), .out = out.data(), .q_stride = q_row,
                               .out_stride = q_row, .scale = problem_.scale, .soft_cap = problem_.soft_cap, .window = problem_.window,
                               .max_query_tokens = most_tokens, .max_kv_length = longest, .pages = pages, .workspace = workspace_.get()};
    REQUIRE(backend_.attend(attend_args, pool_.stream()) == Status::ok);
    for (std::size_t i = 0; i < active.size(); ++i) {
      const std::size_t s = active[i];
      for (int t = 0; t < counts[s]; ++t)
        std::copy_n(&out[static_cast<std::size_t>(starts[i] + t) * q_row], q_row - 16, &out_[s][static_cast<std::size_t>(done_[s] + t) * (q_row - 16)]);
      done_[s] += counts[s];
    }
  }

  // Feeds all sequences in random steps: some decode, some take chunks, some pause.
  void run_ragged(const Inputs& in, std::uint32_t seed) {
    std::mt19937 random(seed);
    for (;;) {
      std::vector<int> counts;
      int left = 0;
      for (std::size_t s = 0; s < done_.size(); ++s) {
        const int rest = problem_.lengths[s] - done_[s];
        left += rest;
        const int wish = random() % 4 == 0 ? 0 : random() % 3 == 0 ? 1 : static_cast<int>(random() % 150);
        counts.push_back(std::min(rest, wish));
      }
      if (left == 0) return;
      if (std::accumulate(counts.begin(), counts.end(), 0) > 0) step(in, counts);
    }
  }

  void run_alone(const Inputs& in, std::size_t sequence, int chunk) {
    while (done_[sequence] < problem_.lengths[sequence]) {
      std::vector<int> counts(done_.size());
      counts[sequence] = std::min(chunk, problem_.lengths[sequence] - done_[sequence]);
      step(in, counts);
    }
  }

  const std::vector<std::vector<float>>& out() const { return out_; }

  // One key/value head's part of the block that holds a token.
  const std::byte* part(Place place) const {
    const int block = table_[static_cast<std::size_t>(place.sequence * per_sequence_ + place.position / 64)];
    return memory_.get() + block * stride_ + layer_offset_ + place.kv_head * (backend_.block_bytes() / problem_.shape.kv_heads);
  }

  // Copies a sequence's blocks to unused ones (three at most) and goes on there.
  void move_blocks(int sequence) {
    std::vector<std::int32_t> source, target;
    for (int b = 0; b < std::min(3, per_sequence_); ++b) {
      std::int32_t& used = table_[static_cast<std::size_t>(sequence * per_sequence_ + b)];
      std::int32_t& spare = table_[table_.size() - 3 + static_cast<std::size_t>(b)];
      source.push_back(used);
      target.push_back(spare);
      std::swap(used, spare);
    }
    const KvCopy args{.struct_size = sizeof(KvCopy), .count = static_cast<int>(source.size()), .source = source.data(), .target = target.data(),
                      .base = memory_.get(), .block_stride = stride_, .layer_offset = layer_offset_};
    REQUIRE(backend_.copy_blocks(args, pool_.stream()) == Status::ok);
    for (const std::int32_t block : source) std::memset(memory_.get() + block * stride_, 0xff, static_cast<std::size_t>(stride_));
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  Problem problem_;
  Backend& backend_;
  TaskPool pool_;
  int workers_;
  int per_sequence_ = 0;
  std::int64_t stride_ = 0, layer_offset_ = 0, workspace_bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_, workspace_;
  std::vector<std::int32_t> table_;
  std::vector<float> rope_;
  std::vector<int> done_;
  std::vector<std::vector<float>> out_;
};

// The largest difference, relative to the spread of the reference.
inline double error_of(const std::vector<std::vector<float>>& got, const std::vector<std::vector<double>>& want) {
  double worst = 0, square = 0;
  std::size_t count = 0;
  for (std::size_t s = 0; s < want.size(); ++s)
    for (std::size_t i = 0; i < want[s].size(); ++i) {
      const double difference = std::abs(got[s][i] - want[s][i]);
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
      square += want[s][i] * want[s][i];
      ++count;
    }
  return worst / std::sqrt(square / static_cast<double>(count));
}

}  // namespace kv_test
