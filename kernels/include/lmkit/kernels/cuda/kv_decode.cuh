// SPDX-License-Identifier: Apache-2.0
//
// Decode attention: one new token a sequence reads all its keys and values once. Cost: the bytes of the pages; the budget
// at an H200's read limit is 28.6 warp instructions per 128 bytes, and 4-bit codes take about 10 of them here.
//
// The query heads of one key/value head are the eight columns of a tensor-core product (two products for groups beyond
// eight), tokens and then dimensions its rows:
//     scores^T (16 tokens, 8 queries) = keys (16, head_dim) queries^T        out^T (head_dim, 8) += values^T (head_dim, 16) weights^T
// Keys and values come as A operands straight from the page, through a ring of shared-memory stages private to a warp, so
// there is no barrier between warps. Scale and bias of a token of a folded codec meet its score and its probability:
//     score_t = key_scale_t (q . code_t) + key_bias_t sum(q)      weight_t = p_t value_scale_t      bias += p_t value_bias_t
// The mean of centred keys is one more key of a step, whose score goes to all others (kv_centre.cuh).
// kv_line.cuh brings the pages, kv_merge.cuh adds up what several warps have had of an item: a block's warps through shared memory at
// the block's end, then the blocks, by whichever is last. No block waits for another.
#pragma once

#include <lmkit/kernels/cuda/kv_centre.cuh>
#include <lmkit/kernels/cuda/kv_fragment.cuh>
#include <lmkit/kernels/cuda/kv_line.cuh>
#include <lmkit/kernels/cuda/kv_merge.cuh>

#include <type_traits>

namespace lmkit::kernels::cuda {

template <class Codec, int head_dim, int tiles_of_8>
struct DecodeShape {
  using Stored = KvTile<Codec, head_dim>;
  static constexpr int most_warps = 4;  // of a block; fewer where shared memory is short (sm_86, 89, 120)
  static constexpr int columns = 8 * tiles_of_8;
  // 64 tokens a step at 4 bits and 32 at 8 (head_dim 128), so that chains of products overlap. On an H200, 8 warps with
  // three such stages beat 12 and 16 warps with fewer or smaller ones: fewer parts to merge at the same bytes in flight.
  static constexpr int tiles = Stored::bytes <= 2560 ? 4 : Stored::bytes <= 5120 ? 2 : 1;
  static constexpr int step_tokens = tiles * tile_tokens;
  static constexpr int step_bytes = tiles * Stored::bytes;
  static constexpr int stage_bytes = step_bytes + Stored::mean_bytes;
  static constexpr int stages = 3;
  // a packed codec is expanded to 16 bits for one step
  static constexpr int expanded_bytes = Stored::kind == TileKind::packed ? tiles * 4 * tile_tokens * head_dim : 0;
  static constexpr int row_at = stages * stage_bytes + expanded_bytes;  // a head of the result, while it is turned back
  static constexpr int warp_bytes = row_at + 4 * head_dim;
  static_assert(8 * columns * part_row(head_dim) <= row_at, "a warp's last part, then its first, lie where its stages were");
  static constexpr int blocks = 2 * most_warps * warp_bytes <= 220 * 1024 ? 2 : 1;  // of a multiprocessor of sm_90
  static constexpr int shared_bytes(int warps, int sequences) { return warps * warp_bytes + (sequences + 1) * 4; }
};

// What one warp holds of an item: queries as B fragments, the running softmax and out^T as C fragments.
template <class Codec, int head_dim, int tiles_of_8, class T>
struct DecodeItem {
  using Stored = KvTile<Codec, head_dim>;
  using Tile = std::conditional_t<Stored::kind == TileKind::packed,
                                  KvTile<Plain16<std::conditional_t<std::is_same_v<T, __half>, Half, BFloat16>>, head_dim>, Stored>;
  using Un = Unpack<Tile>;
  static constexpr int depth = head_dim / 16;
  static constexpr int groups = Tile::folded ? Tile::groups : 1;
  static constexpr int group_depth = depth / groups;
  static constexpr int tiles = DecodeShape<Codec, head_dim, tiles_of_8>::tiles;

  std::uint32_t q[tiles_of_8][depth][2];
  float logit_scale;                            // times a score: what exp2 or tanh is given
  float q_sums[groups][tiles_of_8][2];          // times the bias, or -zero times the scale
  float out[tiles_of_8][depth][4];
  float maximum[tiles_of_8][2], sum[tiles_of_8][2];  // sum: over this lane's tokens
  float bias[groups][tiles_of_8][2];            // sum of p_t value_bias_t over this lane's tokens

  // Loads the queries first .. first + count - 1 of a token; further columns are 0.
  __device__ __forceinline__ void begin(const DecodeParams& p, const std::uint16_t* token_q, int first, int count, int lane) {
    const int g = lane / 4, i = lane % 4;
    float x[tiles_of_8][depth][4];
    float largest = 0.f;
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        uint2 raw = make_uint2(0, 0);
        if (n * 8 + g < count)
          raw = *reinterpret_cast<const uint2*>(token_q + static_cast<std::int64_t>(first + n * 8 + g) * head_dim + k * 16 + 4 * i);
        const float2 a = load2(raw.x, p.view.is_bf16), b = load2(raw.y, p.view.is_bf16);
        x[n][k][0] = a.x, x[n][k][1] = a.y, x[n][k][2] = b.x, x[n][k][3] = b.y;
        if constexpr (Tile::folded) largest = fmaxf(largest, fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(b.x), fabsf(b.y))));
      }
    logit_scale = p.scale;
    float shrink = 1.f;
    if constexpr (Tile::folded) {  // a power of two brings the queries into half precision's range, exactly
      largest = max_over_columns(max_over_rows(largest));
      const int exponent = largest > 0.f ? min(max(ilogbf(largest), -100), 100) : 0;
      shrink = exp2f(static_cast<float>(11 - exponent));
      logit_scale *= exp2f(static_cast<float>(exponent - 11)) * Un::even_unit;
    }
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n) {
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        const float scaled[4] = {x[n][k][0] * shrink, x[n][k][1] * shrink, x[n][k][2] * shrink, x[n][k][3] * shrink};
        Un::template query<T>(scaled, q[n][k][0], q[n][k][1]);
      }
      if constexpr (Tile::folded) {
        for (int r = 0; r < groups; ++r) {
          float total[4] = {};
          for (int k = r * group_depth; k < (r + 1) * group_depth; ++k)
            mma<T>(total, Un::low_ones, Un::low_ones, Un::high_ones, Un::high_ones, q[n][k][0], q[n][k][1]);
          constexpr float unit = (Tile::symmetric() ? -Un::zero : 1.f) / Un::even_unit;
          q_sums[r][n][0] = total[0] * unit, q_sums[r][n][1] = total[1] * unit;
        }
      }
      for (int c = 0; c < 2; ++c) maximum[n][c] = -1e30f, sum[n][c] = 0.f;
      for (int k = 0; k < depth; ++k)
        for (int c = 0; c < 4; ++c) out[n][k][c] = 0.f;
      for (int r = 0; r < groups; ++r)
        for (int c = 0; c < 2; ++c) bias[r][n][c] = 0.f;
    }
  }

  // Raw products of one tile, scaled: what exp2 or tanh is given. C fragment: rows are tokens, columns queries.
  __device__ __forceinline__ void scores(const std::byte* tile, int lane, float (&s)[tiles_of_8][4]) const {
    std::uint32_t words[Tile::words];
    load_tile_words<Tile>(tile, lane, words);
#pragma unroll
    for (int r = 0; r < groups; ++r) {
      float even[tiles_of_8][4] = {}, odd[tiles_of_8][4] = {};  // two chains, so that products overlap
#pragma unroll
      for (int k = r * group_depth; k < (r + 1) * group_depth; ++k) {
        const Fragment a = Un::keys(words + k * Tile::fragment_words);
#pragma unroll
        for (int n = 0; n < tiles_of_8; ++n) mma<T>(k % 2 ? odd[n] : even[n], a.a0, a.a1, a.a2, a.a3, q[n][k][0], q[n][k][1]);
      }
      TokenScales low, high;
      if constexpr (Tile::folded) load_scales<Tile>(tile, r, lane / 4, low, high);
#pragma unroll
      for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          float x = even[n][c] + odd[n][c];
          if constexpr (Tile::folded) {
            const TokenScales& token = c < 2 ? low : high;
            if constexpr (Tile::symmetric()) x = (x + q_sums[r][n][c % 2]) * (token.key_scale * logit_scale);
            else x = fmaf(token.key_scale * logit_scale, x, token.key_bias * logit_scale * q_sums[r][n][c % 2]);
          } else {
            x *= logit_scale;
          }
          s[n][c] = r == 0 ? x : s[n][c] + x;
        }
    }
  }

  // What the mean that keys were stored without adds to every score. C fragment of equal rows.
  __device__ __forceinline__ void mean_scores(const std::byte* mean, int lane, float (&centre)[tiles_of_8][2]) const {
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n) {
      float even[4] = {}, odd[4] = {};
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        const Words<2> m = Centre<head_dim>::fragment(mean, k, lane);
        mma<T>(k % 2 ? odd : even, m.at[0], m.at[0], m.at[1], m.at[1], q[n][k][0], q[n][k][1]);
      }
      for (int c = 0; c < 2; ++c) centre[n][c] = (even[c] + odd[c]) * (logit_scale / Un::even_unit);
    }
  }

  // Adds the tokens of one step: `tiles` tiles in shared memory, of which tokens [low, high) are visible. mean: or null
  __device__ __forceinline__ void add(const DecodeParams& p, const std::byte* stage, const std::byte* mean, int low, int high, int lane) {
    const int g = lane / 4;
    float s[tiles][tiles_of_8][4], centre[tiles_of_8][2] = {};
#pragma unroll
    for (int t = 0; t < tiles; ++t) scores(stage + t * Tile::bytes, lane, s[t]);
    if constexpr (Stored::may_centre)
      if (mean) mean_scores(mean, lane, centre);

    if (p.soft_cap > 0.f) {
#pragma unroll
      for (int t = 0; t < tiles; ++t)
        for (int n = 0; n < tiles_of_8; ++n)
          for (int c = 0; c < 4; ++c) s[t][n][c] = tanh_exp2(s[t][n][c] + centre[n][c % 2]) * (p.soft_cap * 1.44269504f);
      for (int n = 0; n < tiles_of_8; ++n)
        for (int c = 0; c < 2; ++c) centre[n][c] = 0.f;
    }
    if (low > 0 || high < tiles * tile_tokens) {
#pragma unroll
      for (int t = 0; t < tiles; ++t)
        for (int n = 0; n < tiles_of_8; ++n)
          for (int c = 0; c < 4; ++c) {
            const int token = t * tile_tokens + g + c / 2 * 8;
            if (token < low || token >= high) s[t][n][c] = -INFINITY;
          }
    }
    softmax(s, centre);
#pragma unroll
    for (int t = 0; t < tiles; ++t) add_values(stage + t * Tile::bytes, lane, s[t]);
  }

  // Turns scores, to which centre is still to be added, into probabilities relative to the running maximum.
  __device__ __forceinline__ void softmax(float (&s)[tiles][tiles_of_8][4], const float (&centre)[tiles_of_8][2]) {
    float larger[tiles_of_8][2];
    bool grows = false;
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float x = -INFINITY;
#pragma unroll
        for (int t = 0; t < tiles; ++t) x = fmaxf(x, fmaxf(s[t][n][c], s[t][n][c + 2]));
        larger[n][c] = fmaxf(max_over_rows(x) + centre[n][c], maximum[n][c]);
        grows |= larger[n][c] > maximum[n][c];
      }
    if (__any_sync(full_warp, grows)) {
#pragma unroll
      for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float shrink = exp2_approx(maximum[n][c] - larger[n][c]);
          maximum[n][c] = larger[n][c];
          sum[n][c] *= shrink;
          for (int k = 0; k < depth; ++k) out[n][k][c] *= shrink, out[n][k][c + 2] *= shrink;
          for (int r = 0; r < groups; ++r) bias[r][n][c] *= shrink;
        }
    }
#pragma unroll
    for (int t = 0; t < tiles; ++t)
#pragma unroll
      for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          s[t][n][c] = exp2_approx(s[t][n][c] - (maximum[n][c % 2] - centre[n][c % 2]));
          sum[n][c % 2] += s[t][n][c];
        }
  }

  // out^T += values^T weights^T for one tile of probabilities.
  __device__ __forceinline__ void add_values(const std::byte* tile, int lane, const float (&p)[tiles_of_8][4]) {
    std::uint32_t words[Tile::words];
    load_tile_words<Tile>(tile + Tile::part_bytes, lane, words);
#pragma unroll
    for (int r = 0; r < groups; ++r) {
      std::uint32_t b[tiles_of_8][2];
      TokenScales low, high;
      if constexpr (Tile::folded) load_scales<Tile>(tile, r, lane / 4, low, high);
#pragma unroll
      for (int n = 0; n < tiles_of_8; ++n) {
        if constexpr (Tile::folded) {
          const float w0 = low.value_scale * weight_gain, w1 = high.value_scale * weight_gain;
          b[n][0] = transpose8x8(pack2<T>(p[n][0] * w0, p[n][1] * w0));
          b[n][1] = transpose8x8(pack2<T>(p[n][2] * w1, p[n][3] * w1));
          const float b0 = Tile::symmetric() ? low.value_scale * -Un::zero : low.value_bias;
          const float b1 = Tile::symmetric() ? high.value_scale * -Un::zero : high.value_bias;
          for (int c = 0; c < 2; ++c) bias[r][n][c] += p[n][c] * b0 + p[n][c + 2] * b1;
        } else {
          b[n][0] = transpose8x8(pack2<T>(p[n][0], p[n][1]));
          b[n][1] = transpose8x8(pack2<T>(p[n][2], p[n][3]));
        }
      }
#pragma unroll
      for (int k = r * group_depth; k < (r + 1) * group_depth; ++k) {
        const Fragment a = Un::values(words + k * Tile::fragment_words);
#pragma unroll
        for (int n = 0; n < tiles_of_8; ++n) mma<T>(out[n][k], a.a0, a.a1, a.a2, a.a3, b[n][0], b[n][1]);
      }
    }
  }

  // Dimensions 16 k + 2 g and the next one of a query. shift: what biases add
  __device__ __forceinline__ float2 pair(int n, int k, int c, const float (&shift)[groups]) const {
    float2 o = make_float2(out[n][k][c], out[n][k][c + 2]);
    if constexpr (Tile::folded) {
      o.x = o.x * (Un::even_unit / weight_gain) + shift[k / group_depth];
      o.y = o.y * (Un::odd_unit / weight_gain) + shift[k / group_depth];
    }
    return o;
  }
  // Over all tokens of what lanes hold for theirs.
  __device__ __forceinline__ float total(int n, int c, float (&shift)[groups]) const {
    for (int r = 0; r < groups; ++r) shift[r] = Tile::folded ? sum_over_rows(bias[r][n][c]) : 0.f;
    return sum_over_rows(sum[n][c]);
  }

  // Writes `count` queries as a part: (slot_columns, part_row)
  __device__ __forceinline__ void write(float* part, int count, int lane) const {
    const int g = lane / 4, i = lane % 4;
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float shift[groups];
        const float all = total(n, c, shift);
        const int query = n * 8 + 2 * i + c;
        if (query >= count) continue;
        float* row = part + query * part_row(head_dim);
#pragma unroll
        for (int k = 0; k < depth; ++k) *reinterpret_cast<float2*>(row + k * 16 + 2 * g) = pair(n, k, c, shift);
        if (g == 0) *reinterpret_cast<float2*>(row + head_dim) = make_float2(maximum[n][c], all);
      }
  }

  // Stores `count` queries of an item that is complete. head: the first one's result; row: (head_dim) in shared memory
  __device__ __forceinline__ void store(const KvView& view, std::uint16_t* head, float* row, int count, int lane) const {
#pragma unroll
    for (int n = 0; n < tiles_of_8; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float shift[groups];
        const float all = total(n, c, shift);
#pragma unroll 1
        for (int i = 0; i < 4; ++i) {
          const int query = n * 8 + 2 * i + c;
          if (query >= count) break;
          if (lane % 4 == i)
#pragma unroll
            for (int k = 0; k < depth; ++k) *reinterpret_cast<float2*>(row + k * 16 + lane / 4 * 2) = pair(n, k, c, shift);
          MergedRow<head_dim> merged;
          merged.sum = __shfl_sync(full_warp, all, i);
          __syncwarp();
          merged.out.load(row, lane);
          merged.store(view, head + query * head_dim, lane);
          __syncwarp();
        }
      }
  }
};

// T: the type of the products: the activations' for plain and packed codecs, half for folded ones.
template <class Codec, int head_dim, int tiles_of_8, class T>
__global__ void __launch_bounds__((DecodeShape<Codec, head_dim, tiles_of_8>::most_warps * warp_size), (DecodeShape<Codec, head_dim, tiles_of_8>::blocks))
    decode_kernel(const DecodeParams p) {
  using Shape = DecodeShape<Codec, head_dim, tiles_of_8>;
  using Item = DecodeItem<Codec, head_dim, tiles_of_8, T>;
  using Stored = KvTile<Codec, head_dim>;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ BlockPart ends[Shape::most_warps + 1];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
  std::byte* stages = shared + warp * Shape::warp_bytes;
  auto* starts = reinterpret_cast<std::int32_t*>(shared + warps * Shape::warp_bytes);

  start_dependents();
  scan_steps<Shape::most_warps>(p.view, p.window, Shape::step_tokens, starts);
  const int items = p.view.kv_heads * p.query_tiles;
  const KvSplit split = KvSplit::of(p.all_workers, starts[p.view.sequences] * items);
  const int worker = blockIdx.x * warps + warp;
  const int edge = split.begin(blockIdx.x * warps + lane), block_begin = __shfl_sync(full_warp, edge, 0);
  const int begin = __shfl_sync(full_warp, edge, warp), end = __shfl_sync(full_warp, edge, warp + 1);
  if (block_begin >= split.steps) {
    if (blockIdx.x == 0) wait_for_prerequisites();  // a launch must not end before the one before it
    return;
  }

  int at = begin;
  StepLoader<Shape> loader{p, starts, items, lane, at, end};
  const std::uint32_t stages_at = shared_address(stages);
  int fill = 0, use = 0;  // stage indices
  const auto next = [](int stage) { return stage + 1 == Shape::stages ? 0 : stage + 1; };
  StepPlace place{};
  ItemQueries queries{};
  int length = 0, query_start = 0;
  const auto take_item = [&] {
    place = locate(starts, p.view.sequences, items, at);
    queries = ItemQueries::of(p, place.item, Shape::columns);
    length = p.view.kv_lengths[place.sequence], query_start = p.view.query_starts[place.sequence];
  };
  if (at < end) {
    take_item();
    loader.next_page();
  }
  const BlockPart part = block_part<Shape>(p, split, starts, edge, items, lane, warp, warps);
  if (warp == 0 && lane == 0) ends[0] = part;
  if (lane == 1) ends[1 + warp] = part;

  // Before the launch before is done, only the step's arrays are read, and tokens of earlier steps: the new one is in an item's last step.
  bool waited = false;
  const int fresh = at + place.steps - place.step - 1;
#pragma unroll 1
  for (; fill < Shape::stages - 1; ++fill) {
    if (!waited && loader.at >= min(fresh, end)) {
      if (loader.at < end) loader.prefetch();
      wait_for_prerequisites();
      waited = true;
    }
    loader.issue(stages_at + fill * Shape::stage_bytes);
  }
  if (!waited) wait_for_prerequisites();

  constexpr int part_bytes = 4 * part_row(head_dim);  // a query's
  int first_bytes = 0;  // of the part of an item that others have begun and the stretch goes on behind
  std::byte* first_part = reinterpret_cast<std::byte*>(p.slots) + PartialSlots{p.all_workers, warps}.of_warp(worker) * p.slot_columns * part_bytes;
  while (at < end) {
    const int steps = min(place.steps - place.step, end - at);
    int token = (first_step(length, p.window, Shape::step_tokens) + place.step) * Shape::step_tokens;
    const int low = p.window > 0 ? length - p.window : 0;

    Item item;
    item.begin(p, p.q + query_start * p.q_stride, queries.first, queries.count, lane);
    for (int n = 0; n < steps; ++n, token += Shape::step_tokens) {
      wait_copies<Shape::stages - 2>();
      __syncwarp();
      loader.issue(stages_at + fill * Shape::stage_bytes);
      fill = next(fill);
      std::byte* stage = stages + use * Shape::stage_bytes;
      use = next(use);
      if constexpr (Stored::kind == TileKind::packed) {
        std::byte* expanded = stages + Shape::stages * Shape::stage_bytes;
        expand_tiles<Codec, Stored, typename Item::Tile, T>(stage, expanded, Shape::tiles, length - token, lane, warp_size);
        stage = expanded;
        __syncwarp();
      } else if (token + Shape::step_tokens > length) {
        clear_tail<Stored>(stage, Shape::tiles, length - token, lane, warp_size);
        __syncwarp();
      }
      const bool has_mean = Stored::may_centre && p.view.centred && token >= p.view.block_tokens;
      item.add(p, stage, has_mean ? stage + Shape::step_bytes : nullptr, low - token, length - token, lane);
      if constexpr (Stored::kind == TileKind::packed) __syncwarp();
    }
    const int item_begin = at - place.step;
    at += steps;
    if (item_begin >= begin && item_begin + place.steps <= end) {
      auto* row = reinterpret_cast<float*>(stages + Shape::row_at);
      item.store(p.view, p.out + query_start * p.out_stride + queries.first * head_dim, row, queries.count, lane);
    } else if (at < end) {  // the stages are still in use
      first_bytes = queries.count * part_bytes;
      item.write(reinterpret_cast<float*>(first_part), queries.count, lane);
    } else {
      __syncwarp();
      item.write(reinterpret_cast<float*>(stages), queries.count, lane);
    }
    if (at < end) take_item();
  }
  __syncwarp();
  for (int n = 16 * lane; n < first_bytes; n += 16 * warp_size) copy16_async(stages_at + Shape::columns * part_bytes + n, first_part + n);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  end_items<Shape, head_dim>(p, ends, shared, lane, warp, warps);
}

}  // namespace lmkit::kernels::cuda
