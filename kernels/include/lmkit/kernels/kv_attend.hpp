// SPDX-License-Identifier: Apache-2.0
//
// attend: causal attention of a step's tokens over paged keys and values, with an online softmax (arXiv:1805.02867).
// Reads each page once per tile of kv_plan.hpp; 4 * rows * head_dim operations per token of context.
//
// Codes of a folded codec are never scaled one by one:
//     score[t] = k_scale[t] * (q . k_code[t]) + k_bias[t] * sum(q)
//     out      = sum_t (p[t] * v_scale[t]) * v_code[t] + sum_t p[t] * v_bias[t]
// Centred keys add q . mean, the same for every score of a block (kv_centre.hpp).
// Tiles of few rows convert codes in registers. Tiles of many rows first expand a block to floats (still unscaled, so that
// both ways give the same bits) and spend their time in the two register-tiled products below.
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/kernels/hadamard.hpp>
#include <lmkit/kernels/kv_pages.hpp>
#include <lmkit/kernels/kv_plan.hpp>
#include <lmkit/kernels/kv_simd.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lmkit::kernels {
namespace {

inline constexpr int kv_register_rows = 6;  // rows of a register tile: with 4 columns 24 accumulators of 32 registers
inline constexpr int kv_direct_rows = 6;    // up to here codes are converted in registers

// --- the two products: scores = q k, and acc += p v --------------------------------------------------------------------

// sum[r] += factors[r * stride] * units i.. of a row of stored values
template <class V, class Element, int Rows, int Units>
LMKIT_HD void add_products(const float* factors, int stride, const std::byte* row, int i,
                           typename V::F (&sum)[Rows][Units * Element::parts]) noexcept {
  using F = typename V::F;
  constexpr int parts = Element::parts, columns = Units * parts;
  if constexpr (Rows * columns + columns < V::registers) {
    F values[columns];
    for (int u = 0; u < Units; ++u) Element::template load<V>(row, i + u * V::lanes, values + u * parts);
    for (int r = 0; r < Rows; ++r) {
      const F x = V::set1(factors[r * stride]);
      for (int c = 0; c < columns; ++c) sum[r][c] = V::fma(x, values[c], sum[r][c]);
    }
  } else {  // registers are left for the factors alone
    F x[Rows];
    for (int r = 0; r < Rows; ++r) x[r] = V::set1(factors[r * stride]);
    for (int u = 0; u < Units; ++u) {
      F values[parts];
      Element::template load<V>(row, i + u * V::lanes, values);
      for (int r = 0; r < Rows; ++r)
        for (int p = 0; p < parts; ++p) sum[r][u * parts + p] = V::fma(x[r], values[p], sum[r][u * parts + p]);
    }
  }
}

// scores[r][t] = sum_d q[r][d] * k[d][t] for 64 tokens.   q: rows q_stride apart; keys: (head_dim, 64) Elements
template <class Isa, class Element, int Rows>
LMKIT_HD void score_rows(const float* q, int q_stride, const std::byte* keys, int head_dim, float* scores) noexcept {
  using V = Simd<Isa>;
  using F = typename V::F;
  constexpr int parts = Element::parts;
  constexpr int units = V::columns(Rows, parts) / parts;  // of `parts` vectors
  constexpr int run = kv_block_tokens / parts;
  for (int t = 0; t < run; t += units * V::lanes) {
    F sum[Rows][units * parts] = {};
    for (int d = 0; d < head_dim; ++d)
      add_products<V, Element, Rows, units>(q + d, q_stride, keys + d * Element::row_bytes(kv_block_tokens), t, sum);
    for (int r = 0; r < Rows; ++r)
      for (int u = 0; u < units; ++u)
        for (int p = 0; p < parts; ++p)
          V::store(scores + r * kv_block_tokens + p * run + t + u * V::lanes, sum[r][u * parts + p]);
  }
}

// acc[r][i] += sum_{t < tokens} p[r][t] * v[t][i], i in storage order.   values: (64, value_dim) Elements, rows row_bytes apart
template <class Isa, class Element, int Rows, int Units>
LMKIT_HD void add_values_columns(const float* p, int tokens, const std::byte* values, std::int64_t row_bytes, int i, int part_stride,
                                 float* acc, int width) noexcept {
  using V = Simd<Isa>;
  using F = typename V::F;
  constexpr int parts = Element::parts;
  F sum[Rows][Units * parts];
  for (int r = 0; r < Rows; ++r)
    for (int u = 0; u < Units; ++u)
      for (int part = 0; part < parts; ++part) sum[r][u * parts + part] = V::load(acc + r * width + part * part_stride + i + u * V::lanes);
  for (int t = 0; t < tokens; ++t) add_products<V, Element, Rows, Units>(p + t, kv_block_tokens, values + t * row_bytes, i, sum);
  for (int r = 0; r < Rows; ++r)
    for (int u = 0; u < Units; ++u)
      for (int part = 0; part < parts; ++part) V::store(acc + r * width + part * part_stride + i + u * V::lanes, sum[r][u * parts + part]);
}

template <class Isa, class Element, int Rows>
LMKIT_HD void add_values_rows(const float* p, int tokens, const std::byte* values, std::int64_t row_bytes, float* acc, int width) noexcept {
  using V = Simd<Isa>;
  constexpr int units = V::columns(Rows, Element::parts) / Element::parts;
  const int part_stride = width / Element::parts;
  int i = 0;
  for (; i + units * V::lanes <= part_stride; i += units * V::lanes)
    add_values_columns<Isa, Element, Rows, units>(p, tokens, values, row_bytes, i, part_stride, acc, width);
  for (; i < part_stride; i += V::lanes)
    add_values_columns<Isa, Element, Rows, 1>(p, tokens, values, row_bytes, i, part_stride, acc, width);
}

// Calls body.template operator()<Rows>(first) over `rows` rows, kv_register_rows at a time.
template <int Rows = kv_register_rows, class Body>
LMKIT_HD void for_row_tiles(int rows, Body&& body) noexcept {
  int first = 0;
  for (; first + Rows <= rows; first += Rows) body.template operator()<Rows>(first);
  if constexpr (Rows > 1)
    if (first < rows) for_row_tiles<Rows - 1>(rows - first, [&]<int R>(int f) __attribute__((always_inline)) { body.template operator()<R>(first + f); });
}

// The two products for any number of rows. Not inlined: one copy serves all codecs of a file.
template <class Isa, class Element>
[[gnu::noinline]] void score_tile(int rows, const float* q, const std::byte* keys, int head_dim, float* scores) noexcept {
  for_row_tiles(rows, [&]<int Rows>(int r) __attribute__((always_inline)) {
    score_rows<Isa, Element, Rows>(q + r * head_dim, head_dim, keys, head_dim, scores + r * kv_block_tokens);
  });
}

template <class Isa, class Element>
[[gnu::noinline]] void add_values_tile(int rows, const float* p, int tokens, const std::byte* values, std::int64_t row_bytes, float* acc,
                                       int width) noexcept {
  for_row_tiles(rows, [&]<int Rows>(int r) __attribute__((always_inline)) {
    add_values_rows<Isa, Element, Rows>(p + r * kv_block_tokens, tokens, values, row_bytes, acc + r * width, width);
  });
}

// --- softmax -------------------------------------------------------------------------------------------------------------

// A row's running softmax: acc / total is the result so far; `bias` goes to every dimension.
struct KvRow {
  float peak, total, bias;
};

inline constexpr float kv_no_peak = -1e30f;

// Turns 64 raw scores into weights for the values, in place, and returns the factor for what was summed before.
// Slots outside [visible_begin, visible_end) get weight 0, whatever they hold. `centre` goes to every folded score.
template <class Isa, bool Folded>
LMKIT_HD float soften_row(float* scores, int visible_begin, int visible_end, const KvScales& scales, float query_sum, float centre,
                          float soft_cap, KvRow& row) noexcept {
  using V = Simd<Isa>;
  using F = typename V::F;
  constexpr int vectors = kv_block_tokens / V::lanes;
  const auto visible = [&](int v) {
    const typename V::I slot = V::iota() + v * V::lanes;
    return (slot >= visible_begin) & (slot < visible_end);
  };
  F s[vectors];
  F peaks = V::set1(kv_no_peak);
  for (int v = 0; v < vectors; ++v) {
    s[v] = V::load(scores + v * V::lanes);
    if constexpr (Folded)
      s[v] = V::fma(V::load(scales.k_scale + v * V::lanes), s[v],
                    V::fma(V::load(scales.k_bias + v * V::lanes), V::set1(query_sum), V::set1(centre)));
    if (soft_cap > 0.f) {  // cap * tanh(s / cap) with tanh(x) = sign(x) (1 - e^-2|x|) / (1 + e^-2|x|)
      const F magnitude = s[v] < 0.f ? -s[v] : s[v];
      const F e = exp_negative<Isa>(magnitude * V::set1(-2.f / soft_cap));
      const F t = V::set1(soft_cap) * (1.f - e) / (1.f + e);
      s[v] = s[v] < 0.f ? -t : t;
    }
    s[v] = visible(v) ? s[v] : V::set1(kv_no_peak);
    peaks = V::max2(peaks, s[v]);
  }
  const float peak = larger(row.peak, greatest<Isa>(peaks));
  const float factor = exp_negative1<Isa>(row.peak - peak);
  F total = {}, bias = {};
  for (int v = 0; v < vectors; ++v) {
    const F p = visible(v) ? exp_negative<Isa>(s[v] - peak) : F{};
    total += p;
    if constexpr (Folded) {
      V::store(scores + v * V::lanes, p * V::load(scales.v_scale + v * V::lanes));
      bias = V::fma(p, V::load(scales.v_bias + v * V::lanes), bias);
    } else {
      V::store(scores + v * V::lanes, p);
    }
  }
  row.peak = peak;
  row.total = row.total * factor + V::sum(total);
  if constexpr (Folded) row.bias = row.bias * factor + V::sum(bias);
  return factor;
}

// row, acc += other, other_acc: both partial results over different positions
template <class Isa>
LMKIT_HD void merge_row(KvRow& row, float* acc, const KvRow& other, const float* other_acc, int width) noexcept {
  using V = Simd<Isa>;
  const float peak = larger(row.peak, other.peak);
  const float mine = exp_negative1<Isa>(row.peak - peak), its = exp_negative1<Isa>(other.peak - peak);
  for (int i = 0; i < width; i += V::lanes)
    V::store(acc + i, V::fma(V::load(other_acc + i), V::set1(its), V::load(acc + i) * V::set1(mine)));
  row = {peak, row.total * mine + other.total * its, row.bias * mine + other.bias * its};
}

// --- a task ----------------------------------------------------------------------------------------------------------------

template <class Isa, class Pages>
class KvAttention {
  using V = Simd<Isa>;
  using Element = typename Pages::Element;

 public:
  KvAttention(const KvLayer& layer, const KvAttend& args, Stream stream) noexcept
      : layer_(layer), args_(args), width_(storage_width<Element>(layer.head_dim)), workers_(stream.workers()),
        places_(KvWorkspace::of(scratch_floats(layer) * 4, partial_floats(layer), workers_)) {}

  static std::int64_t workspace_bytes(const KvLayer& layer, const KvLimits& limits) noexcept {
    return KvWorkspace::of(scratch_floats(layer) * 4, partial_floats(layer), most(limits.workers, 1), kv_max_tasks(layer, limits)).end;
  }

  void run(Stream stream) noexcept {
    const std::int32_t count = plan_tasks(layer_, args_, workers_, tasks(), counters());
    stream.parallel_for(count, [this](std::int32_t index, std::int32_t worker) { run_task(tasks()[index], scratch_of(worker)); });
  }

 private:
  // Floats of a worker's scratch. Rows come in the order (token, query head).
  struct Scratch {
    float* q;            // (rows, head_dim), multiplied by the softmax scale
    float* scores;       // (rows, 64)
    float* acc;          // (rows, width) of the span
    float* total_acc;    // (rows, width) of the spans so far
    float* keys;         // (head_dim, 64) of a block, expanded
    float* values;       // (64, width)
    float* query_sums;   // (rows)
    KvRow* rows;         // (rows) of the span
    KvRow* total_rows;   // (rows) of the spans so far
  };

  static std::int64_t scratch_floats(const KvLayer& layer) noexcept {
    const std::int64_t rows = round_up(kv_max_rows(layer), 16), dim = round_up(layer.head_dim, 16), width = storage_width<Element>(layer.head_dim);
    return rows * (dim + kv_block_tokens + 2 * width + 1 + 2 * 3) + kv_block_tokens * (dim + width);
  }

  static std::int64_t partial_floats(const KvLayer& layer) noexcept { return storage_width<Element>(layer.head_dim) + 3; }

  Scratch scratch_of(int worker) const noexcept {
    float* next = reinterpret_cast<float*>(static_cast<std::byte*>(args_.workspace) + worker * places_.worker);
    const auto take = [&](std::int64_t floats) {
      float* taken = next;
      next += floats;
      return taken;
    };
    const std::int64_t rows = round_up(kv_max_rows(layer_), 16), dim = round_up(layer_.head_dim, 16);
    Scratch s;
    s.keys = take(kv_block_tokens * dim);
    s.values = take(std::int64_t{kv_block_tokens} * width_);
    s.q = take(rows * dim);
    s.scores = take(rows * kv_block_tokens);
    s.acc = take(rows * width_);
    s.total_acc = take(rows * width_);
    s.query_sums = take(rows);
    s.rows = reinterpret_cast<KvRow*>(take(3 * rows));
    s.total_rows = reinterpret_cast<KvRow*>(take(3 * rows));
    return s;
  }

  std::byte* at(std::int64_t offset) const noexcept { return static_cast<std::byte*>(args_.workspace) + offset; }
  KvTask* tasks() const noexcept { return reinterpret_cast<KvTask*>(at(places_.tasks)); }
  std::int32_t* counters() const noexcept { return reinterpret_cast<std::int32_t*>(at(places_.counters)); }
  float* partial_acc(std::int64_t row) const noexcept { return reinterpret_cast<float*>(at(places_.partials)) + row * partial_floats(layer_); }

  int heads_of(const KvTask& task) const noexcept { return layer_.first_query(task.kv_head + 1) - layer_.first_query(task.kv_head); }

  std::int32_t position_of(const KvTask& task) const noexcept {
    return task.first_token + args_.pages.kv_lengths[task.sequence] - args_.pages.query_starts[task.sequence + 1];
  }

  void run_task(const KvTask& task, const Scratch& s) const noexcept {
    const int rows = task.tokens * heads_of(task);
    gather_queries(task, s);
    for (std::int32_t span = task.span_begin; span < task.span_end; ++span) {
      attend_span(task, span, s);
      if (task.partial >= 0) {
        save_partial(task.partial + (span - task.tile_begin) * rows, rows, s.rows, s.acc);
      } else if (span == task.span_begin) {
        std::memcpy(s.total_rows, s.rows, sizeof(KvRow) * rows);
        std::memcpy(s.total_acc, s.acc, sizeof(float) * rows * width_);
      } else {
        for (int r = 0; r < rows; ++r) merge_row<Isa>(s.total_rows[r], s.total_acc + r * width_, s.rows[r], s.acc + r * width_, width_);
      }
    }
    if (task.partial >= 0) {  // the last of a tile's tasks merges all
      if (std::atomic_ref<std::int32_t>(counters()[task.counter]).fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      merge_partials(task, rows, s);
    }
    write_results(task, s);
  }

  void gather_queries(const KvTask& task, const Scratch& s) const noexcept {
    const int first_head = layer_.first_query(task.kv_head), heads = heads_of(task), dim = layer_.head_dim;
    for (int r = 0; r < task.tokens * heads; ++r) {
      const float* q = static_cast<const float*>(args_.q) + (task.first_token + r / heads) * args_.q_stride + (first_head + r % heads) * dim;
      float* x = s.q + r * dim;
      typename V::F sums{};
      int d = 0;
      for (; d + V::lanes <= dim; d += V::lanes) {
        const typename V::F y = V::load(q + d) * V::set1(args_.scale);
        V::store(x + d, y);
        sums += y;
      }
      float sum = V::sum(sums);
      for (; d < dim; ++d) sum += x[d] = q[d] * args_.scale;
      s.query_sums[r] = sum;
    }
  }

  void save_partial(std::int64_t first, int rows, const KvRow* row, const float* acc) const noexcept {
    for (int r = 0; r < rows; ++r) {
      float* to = partial_acc(first + r);
      std::memcpy(to, acc + r * width_, sizeof(float) * width_);
      std::memcpy(to + width_, row + r, sizeof(KvRow));
    }
  }

  void merge_partials(const KvTask& task, int rows, const Scratch& s) const noexcept {
    for (std::int32_t span = task.tile_begin; span < task.tile_end; ++span)
      for (int r = 0; r < rows; ++r) {
        const float* from = partial_acc(task.partial + std::int64_t{span - task.tile_begin} * rows + r);
        KvRow row;
        std::memcpy(&row, from + width_, sizeof row);
        if (span == task.tile_begin) {
          s.total_rows[r] = row;
          std::memcpy(s.total_acc + r * width_, from, sizeof(float) * width_);
        } else {
          merge_row<Isa>(s.total_rows[r], s.total_acc + r * width_, row, from, width_);
        }
      }
  }

  // One span of positions into s.rows and s.acc.
  void attend_span(const KvTask& task, std::int32_t span, const Scratch& s) const noexcept {
    const int rows = task.tokens * heads_of(task);
    for (int r = 0; r < rows; ++r) s.rows[r] = {kv_no_peak, 0.f, 0.f};
    std::memset(s.acc, 0, sizeof(float) * rows * width_);
    const std::int32_t first = position_of(task), last = first + task.tokens - 1;
    const std::int32_t length = kv_span(first);
    const std::int32_t oldest = args_.window > 0 ? most(0, first - args_.window + 1) : 0;
    const std::int32_t begin = most(span * length, oldest) / kv_block_tokens;
    const std::int32_t end = least((span + 1) * length - 1, last) / kv_block_tokens + 1;
    const std::int64_t head_bytes = Pages::head_bytes(layer_.head_dim);
    const std::int32_t* table = args_.pages.block_tables + task.sequence * args_.pages.block_table_stride;
    const auto head_of = [&](std::int32_t block) {
      return static_cast<const std::byte*>(args_.pages.base) + table[block] * args_.pages.block_stride + args_.pages.layer_offset +
             task.kv_head * head_bytes;
    };
    for (std::int32_t block = begin; block < end; ++block) {
      if (block + 1 < end)  // blocks lie apart, where hardware does not look ahead
        for (std::int64_t line = 0; line < head_bytes; line += 64) __builtin_prefetch(head_of(block + 1) + line);
      const std::byte* centre = nullptr;
      if constexpr (Pages::centred)
        if (block > 0) centre = head_of(block - 1) + Pages::centre_offset(layer_.head_dim);
      attend_block(task, head_of(block), centre, first - block * kv_block_tokens, s);
    }
  }

  // `centre`: the mean that was subtracted from the block's keys, or null
  // `first`: the slot of the tile's first token in this block, if the block went on for ever
  void attend_block(const KvTask& task, const std::byte* head, const std::byte* centre, std::int32_t first, const Scratch& s) const noexcept {
    const int heads = heads_of(task), rows = task.tokens * heads, dim = layer_.head_dim;
    const int filled = least(kv_block_tokens, first + task.tokens);  // slots that hold a token
    KvScales scales;
    if constexpr (Pages::folded) Pages::template load_scales<Isa>(head, dim, filled, scales);

    bool expanded = true;
    if constexpr (Pages::direct) {
      expanded = rows > kv_direct_rows;
      if (!expanded) score_tile<Isa, Element>(rows, s.q, Pages::keys(head, dim), dim, s.scores);
    }
    if (expanded) {
      Pages::template expand<Isa>(head, dim, filled, s.keys, s.values, width_);
      score_tile<Isa, F32>(rows, s.q, reinterpret_cast<const std::byte*>(s.keys), dim, s.scores);
    }

    for (int r = 0; r < rows; ++r) {
      const int visible_end = least(kv_block_tokens, first + r / heads + 1);
      const int visible_begin = args_.window > 0 ? most(0, first + r / heads + 1 - args_.window) : 0;
      const float shift = centre ? dot_centre<Isa>(centre, s.q + r * dim, dim) : 0.f;
      const float factor = soften_row<Isa, Pages::folded>(s.scores + r * kv_block_tokens, visible_begin, visible_end, scales,
                                                          s.query_sums[r], shift, args_.soft_cap, s.rows[r]);
      if (factor != 1.f)
        for (int i = 0; i < width_; i += V::lanes)
          V::store(s.acc + r * width_ + i, V::load(s.acc + r * width_ + i) * V::set1(factor));
    }

    if constexpr (Pages::direct)
      if (!expanded)
        add_values_tile<Isa, Element>(rows, s.scores, filled, Pages::values(head, dim), Element::row_bytes(dim), s.acc, width_);
    if (expanded)
      add_values_tile<Isa, F32>(rows, s.scores, filled, reinterpret_cast<const std::byte*>(s.values), width_ * 4, s.acc, width_);
  }

  void write_results(const KvTask& task, const Scratch& s) const noexcept {
    const int first_head = layer_.first_query(task.kv_head), heads = heads_of(task), dim = layer_.head_dim;
    for (int r = 0; r < task.tokens * heads; ++r) {
      float* out = static_cast<float*>(args_.out) + (task.first_token + r / heads) * args_.out_stride + (first_head + r % heads) * dim;
      const float* acc = s.total_acc + r * width_;
      const KvRow& row = s.total_rows[r];
      const float inverse = 1.f / row.total;
      for (int d = 0; d < dim; ++d) out[d] = (acc[storage_index<Element>(d, dim)] + row.bias) * inverse;
      if (layer_.hadamard) hadamard_row<Isa>(out, dim);
    }
  }

  const KvLayer& layer_;
  const KvAttend& args_;
  int width_;
  int workers_;
  KvWorkspace places_;
};

}  // namespace
}  // namespace lmkit::kernels
