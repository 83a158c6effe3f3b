// SPDX-License-Identifier: Apache-2.0
//
// Rows of lmkit bench kernel: append and attend, launched by the engine's own building blocks (model/layers.hpp).
//
// Pages are filled by appending rows of one buffer of random q, k and v, in chunks of which each begins at another row. The
// reference is attention in float64 over these keys and values, so an error contains what the codec rounded away.
#include "bench_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lmkit::cli {
namespace {

class Attention {
 public:
  Attention(BenchRig& rig, const AttentionCase& what)
      : rig_(rig), config_(rig.config()), lengths_(what.lengths), prefill_(what.prefill), last_layer_(config_.layers - 1), blocks_(static_cast<std::size_t>(rig.blocks())) {
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), rig.random());
    for (std::size_t s = 0, used = 0; s < lengths_.size(); ++s) {
      first_block_.push_back(used);
      used += static_cast<std::size_t>(blocks_for(lengths_[s]));
    }
    rig.randomise(rig.activations().qkv, rig.limits().tokens * width(), rig.device().dtype());
    rows_ = rig.get(rig.activations().qkv, rig.limits().tokens * row_bytes());
    if (!prefill_) fill();
    begin_step();
  }

  std::int64_t tokens() const { return prefill_ ? lengths_[0] : std::ssize(lengths_); }

  Status append(int layer) {
    auto step = rig_.step(rig_.activations());
    lmkit::append(step, layer);
    return step.status;
  }
  Status attend(int layer) {
    auto step = rig_.step(rig_.activations());
    lmkit::attend(step, layer);
    return step.status;
  }

  // Of a few tokens' heads in the last layer, once the step's tokens have been appended.
  double error() {
    rig_.run([&] { return attend(last_layer_); });
    RelativeError error;
    const Dtype dtype = rig_.device().dtype();
    const std::int64_t D = config_.head_dim;
    for (int n = 0; n < 3; ++n) {
      const std::int64_t token = n * (tokens() - 1) / 2, head = n * (config_.query_heads - 1) / 2;
      const std::byte* const out = rig_.activations().attended + (token * config_.query_heads + head) * D * size_of(dtype);
      const std::vector<float> result = rig_.values(out, D, dtype);
      const std::vector<double> expected = reference(token, head);
      for (std::int64_t d = 0; d < D; ++d) error.add(result[static_cast<std::size_t>(d)], expected[static_cast<std::size_t>(d)]);
    }
    return error.value();
  }

  // Of all sequences, the mean over the layers: tokens that are seen by a sequence's last token, and by all its new ones.
  double tokens_read() const {
    return mean_of_layers([&](double length, double window) { return std::min(length, window); });
  }
  double pairs() const {
    return mean_of_layers([&](double length, double window) {
      const double whole = std::min(length, window);
      return prefill_ ? whole * (whole + 1) / 2 + (length - whole) * window : whole;
    });
  }

 private:
  std::int64_t width() const { return (config_.query_heads + 2 * std::int64_t{config_.kv_heads}) * config_.head_dim; }
  std::int64_t row_bytes() const { return width() * size_of(rig_.device().dtype()); }

  template <class Count>
  double mean_of_layers(Count count) const {
    double sum = 0;
    for (int layer = 0; layer < config_.layers; ++layer)
      for (const std::int32_t length : lengths_) sum += count(length, config_.window_of(layer) > 0 ? config_.window_of(layer) : length);
    return sum / config_.layers;
  }

  // A plan's next sequence, which ends at `length` with `fresh` new tokens.
  void add(StepPlan& plan, std::size_t sequence, std::int32_t length, std::int32_t fresh) const {
    plan.tokens.resize(plan.tokens.size() + static_cast<std::size_t>(fresh));
    plan.token_sequence.resize(plan.tokens.size(), plan.sequences());
    plan.query_starts.push_back(plan.size());
    plan.kv_lengths.push_back(length);
    const std::size_t row = plan.block_tables.size();
    plan.block_tables.resize(row + static_cast<std::size_t>(plan.block_table_stride), 0);
    std::copy_n(blocks_.begin() + static_cast<std::ptrdiff_t>(first_block_[sequence]), blocks_for(lengths_[sequence]),
                plan.block_tables.begin() + static_cast<std::ptrdiff_t>(row));
  }

  // The row of a token that fill() appended.
  std::int64_t filled_row(std::int64_t sequence, std::int64_t token, std::int64_t layer) const {
    const std::int64_t starts = rig_.limits().tokens - chunk() + 1;
    return (131 * sequence + 17 * (token / chunk()) + 7 * layer) % starts + token % chunk();
  }
  std::int32_t chunk() const { return std::max(1, rig_.limits().tokens / 2); }

  // Every token but the sequences' last.
  void fill() {
    for (std::size_t s = 0; s < lengths_.size(); ++s)
      for (std::int32_t done = 0; done < lengths_[s] - 1; done += chunk()) {
        const std::int32_t fresh = std::min(chunk(), lengths_[s] - 1 - done);
        StepPlan plan;
        plan.clear();
        plan.block_table_stride = blocks_for(lengths_[s]);
        add(plan, s, done + fresh, fresh);
        rig_.begin(std::move(plan));
        rig_.run([&] {
          Status status = Status::ok;
          for (int layer = 0; layer < config_.layers; ++layer) {
            Activations shifted = rig_.activations();
            shifted.qkv += filled_row(static_cast<std::int64_t>(s), done, layer) * row_bytes();
            auto step = rig_.step(shifted);
            lmkit::append(step, layer);
            status = both(status, step.status);
          }
          return status;
        });
      }
  }

  // The step that is timed, appended once. What append did to the queries for other layers is undone for the last.
  void begin_step() {
    StepPlan plan;
    plan.clear();
    plan.block_table_stride = blocks_for(*std::max_element(lengths_.begin(), lengths_.end()));
    for (std::size_t s = 0; s < lengths_.size(); ++s) add(plan, s, lengths_[s], prefill_ ? lengths_[s] : 1);
    rig_.begin(std::move(plan));
    for (int layer = 0; layer < config_.layers; ++layer) {
      rig_.put(rig_.activations().qkv, rows_.data(), tokens() * row_bytes());
      rig_.run([&] { return append(layer); });
    }
  }

  // Head `head` of (q, k, v) side by side in a row, turned by a position where that is wanted.
  std::vector<double> head_of(std::int64_t row, std::int64_t head, std::int64_t position) const {
    const std::int64_t D = config_.head_dim, pairs = config_.rope.rotary_dim / 2;
    std::vector<double> x(static_cast<std::size_t>(D));
    for (std::int64_t d = 0; d < D; ++d) x[static_cast<std::size_t>(d)] = value_at(rows_.data(), row * width() + head * D + d, rig_.device().dtype());
    if (position < 0 || config_.rope.pairs == LMKIT_ROPE_NONE) return x;
    const bool adjacent = config_.rope.pairs == LMKIT_ROPE_ADJACENT;
    const float* const angles = rig_.rope_table().data() + position * pairs * 2;
    for (std::int64_t i = 0; i < pairs; ++i) {
      double& a = x[static_cast<std::size_t>(adjacent ? 2 * i : i)];
      double& b = x[static_cast<std::size_t>(adjacent ? 2 * i + 1 : i + pairs)];
      const double c = angles[2 * i], s = angles[2 * i + 1], was = a;
      a = was * c - b * s;
      b = was * s + b * c;
    }
    return x;
  }

  std::vector<double> reference(std::int64_t token, std::int64_t head) const {
    const std::int64_t sequence = prefill_ ? 0 : token, at = prefill_ ? token : lengths_[static_cast<std::size_t>(token)] - 1;
    const std::int64_t H = config_.query_heads, K = config_.kv_heads, key = H + head / (H / K), value = key + K;
    const int window = config_.window_of(last_layer_);
    const std::vector<double> q = head_of(token, head, at);
    std::vector<double> sum(q.size());
    double total = 0, largest = -1e300;
    for (std::int64_t t = window > 0 ? std::max<std::int64_t>(0, at - window + 1) : 0; t <= at; ++t) {
      const std::int64_t row = prefill_ ? t : t == at ? token : filled_row(sequence, t, last_layer_);
      const std::vector<double> k = head_of(row, key, t), v = head_of(row, value, -1);
      const double score = std::inner_product(q.begin(), q.end(), k.begin(), 0.0) / std::sqrt(static_cast<double>(q.size()));
      if (score > largest) {
        const double shrink = std::exp(largest - score);
        total *= shrink;
        for (double& x : sum) x *= shrink;
        largest = score;
      }
      const double weight = std::exp(score - largest);
      total += weight;
      for (std::size_t d = 0; d < v.size(); ++d) sum[d] += weight * v[d];
    }
    for (double& x : sum) x /= total;
    return sum;
  }

  BenchRig& rig_;
  const ModelConfig& config_;
  std::vector<std::int32_t> lengths_;
  bool prefill_;
  int last_layer_;
  std::vector<std::int32_t> blocks_;      // of the pool, shuffled
  std::vector<std::size_t> first_block_;  // of each sequence
  std::vector<std::byte> rows_;           // what qkv held before append turned queries
};

}  // namespace

int AttentionCase::blocks() const {
  return std::accumulate(lengths.begin(), lengths.end(), 0, [](int sum, std::int32_t length) { return sum + blocks_for(length); });
}

std::string AttentionCase::name() const {
  if (prefill) return fmt::format("{} tokens", depth);
  return ragged ? fmt::format("{} x 1..{}", lengths.size(), 2 * depth) : fmt::format("{} x {}", lengths.size(), depth);
}

void bench_attention(BenchJob job, const AttentionCase& what) {
  BenchRig& rig = job.rig;
  const ModelConfig& config = rig.config();
  Attention attention(rig, what);
  const double error = attention.error();
  const double token_bytes = static_cast<double>(rig.kv_layer_bytes()) / block_tokens;
  const double pool_bytes = static_cast<double>(rig.kv_layer_bytes()) * what.blocks();
  const double heads = config.query_heads, D = config.head_dim, tokens = static_cast<double>(attention.tokens());

  BenchRow row{.what = what.prefill ? "attend prefill" : "attend decode", .kv = job.kv, .tokens = attention.tokens(), .sequences = std::ssize(what.lengths),
               .depth = what.depth, .ragged = what.ragged, .touched = pool_bytes * config.layers, .error = error};
  if (what.prefill) row.flops = 4 * heads * D * attention.pairs();
  else row.bytes = token_bytes * attention.tokens_read();
  row.seconds = rig.seconds([&](int layer) { return attention.attend(layer); }, job.repeats);
  job.add(row);

  // q is read and written, k and v are read, their codes written
  row.what = "append";
  row.flops = 0;
  row.bytes = tokens * ((2 * heads + 2 * config.kv_heads) * D * size_of(rig.device().dtype()) + token_bytes);
  row.touched = row.bytes * config.layers;
  row.error.reset();
  row.seconds = rig.seconds([&](int layer) { return attention.append(layer); }, job.repeats);
  job.add(row);
}

void bench_copy_blocks(BenchJob job) {
  BenchRig& rig = job.rig;
  std::vector<std::int32_t> blocks(static_cast<std::size_t>(rig.blocks()));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), rig.random());
  const std::int64_t count = std::min<std::int64_t>(rig.blocks() / 2, rig.limits().tokens);
  if (count == 0) return;
  StepPlan plan;  // whose arrays hold the copies' sources and targets
  plan.clear();
  plan.tokens.assign(blocks.begin(), blocks.begin() + count);
  plan.token_sequence.assign(blocks.begin() + count, blocks.begin() + 2 * count);
  rig.begin(std::move(plan));
  const auto step = rig.step(rig.activations());
  const std::int64_t bytes = step.kv.block_bytes();
  const auto call = [&](int layer) {
    return step.kv.copy_blocks({.struct_size = sizeof(KvCopy), .count = static_cast<std::int32_t>(count), .source = step.arrays.tokens, .target = step.arrays.token_sequence,
                                .base = step.pool.base, .block_stride = step.pool.block_stride, .layer_offset = layer * step.pool.layer_stride}, rig.device().stream());
  };
  const auto first_layer_of = [&](std::int64_t n) { return step.pool.base + blocks[static_cast<std::size_t>(n)] * step.pool.block_stride; };
  const std::vector<std::int64_t> checked = some_of(count, 3);
  std::vector<std::vector<std::byte>> expected;
  for (const std::int64_t n : checked) {
    std::generate_n(std::back_inserter(expected.emplace_back()), bytes, [&] { return static_cast<std::byte>(rig.random()()); });
    rig.put(first_layer_of(n), expected.back().data(), bytes);
  }
  rig.run([&] { return call(0); });
  bool same = true;
  for (std::size_t i = 0; i < checked.size(); ++i) same = same && rig.get(first_layer_of(count + checked[i]), bytes) == expected[i];

  BenchRow row{.what = "copy blocks", .kv = job.kv, .tokens = count * block_tokens, .bytes = 2.0 * static_cast<double>(count * bytes), .error = same ? 0 : 1};
  row.touched = row.bytes * rig.config().layers;
  row.seconds = rig.seconds(call, job.repeats);
  job.add(row);
}

}  // namespace lmkit::cli
