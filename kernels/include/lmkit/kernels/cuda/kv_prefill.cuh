// SPDX-License-Identifier: Apache-2.0
//
// Prefill attention: chunks of new tokens over all keys and values before them, causal, optionally in a window. Cost:
// 4 head_dim operations a visible (query, key) pair; the pages of earlier chunks are read as they are stored.
//
// A block takes `rows` query tokens of one head and walks over steps of 64 tokens, fewer where shared memory is short (FlashAttention-2, arXiv:2307.08691).
// A warp owns 16 or 32 of the rows; queries are the A operand, kept in shared memory in fragment order, keys and values
// the B operand, read from the same page fragments as in decode. A folded codec's scales meet scores and probabilities.
// The means of centred keys, of eight pages at a time, are the columns of one more product, whose results wait in shared
// memory for the softmax.
#pragma once

#include <lmkit/kernels/cuda/kv_centre.cuh>
#include <lmkit/kernels/cuda/kv_fragment.cuh>
#include <lmkit/kernels/cuda/kv_view.cuh>
#include <lmkit/kernels/cuda/warp_row.cuh>

#include <type_traits>

namespace lmkit::kernels::cuda {

struct PrefillParams {
  KvView view;
  const std::uint16_t* q;  // (tokens, query_heads, head_dim)
  std::uint16_t* out;
  std::int64_t q_stride, out_stride;
  float scale;     // > 0; as in DecodeParams
  float soft_cap;
  std::int32_t window;
};

template <class Codec, int head_dim>
struct PrefillShape {
  using Stored = KvTile<Codec, head_dim>;
  static constexpr int warps = 4;
  static constexpr int threads = warps * warp_size;
  // 32 rows a warp halve the shared-memory reads of keys and values; more accumulators than that do not fit
  static constexpr int row_tiles = head_dim <= 128 && (!Stored::folded || Stored::groups == 1) ? 2 : 1;
  static constexpr int warp_rows = 16 * row_tiles;
  static constexpr int rows = warps * warp_rows;
  static constexpr int stages = 2;
  static constexpr int mean_pages = 8;                       // whose means are multiplied at once
  static constexpr int mean_stride = Stored::Mean::bytes + 32;  // the eight are read without bank conflicts
  static constexpr int mean_bytes = Stored::may_centre ? 2 * mean_pages * mean_stride : 0;  // two times eight
  static constexpr int warp_bytes = warp_rows * (head_dim * 2 + (Stored::may_centre ? 4 * mean_pages : 0));  // its queries; what means add to their scores
  static constexpr int query_bytes = warps * warp_bytes;
  // a packed codec is expanded to 16 bits for one stage
  static constexpr int expanded_tile_bytes = Stored::kind == TileKind::packed ? 4 * tile_tokens * head_dim : 0;
  static constexpr int tile_bytes = stages * Stored::bytes + expanded_tile_bytes;
  static constexpr bool fits(int tiles) { return query_bytes + tiles * tile_bytes + mean_bytes <= 99 * 1024; }  // sm_86, 89 and 120 too
  static constexpr int tiles = fits(4) ? 4 : fits(2) ? 2 : 1;
  static constexpr int step_tokens = tiles * tile_tokens;
  static constexpr int stage_bytes = tiles * Stored::bytes;
  static constexpr int shared_bytes = query_bytes + tiles * tile_bytes + mean_bytes;
};

// One warp's rows. Rows g and g + 8 of row tile m are this lane's.
template <class Codec, int head_dim, class T>
struct PrefillRows {
  using Shape = PrefillShape<Codec, head_dim>;
  using Stored = typename Shape::Stored;
  using Tile = std::conditional_t<Stored::kind == TileKind::packed,
                                  KvTile<Plain16<std::conditional_t<std::is_same_v<T, __half>, Half, BFloat16>>, head_dim>, Stored>;
  using Un = Unpack<Tile>;
  static constexpr int row_tiles = Shape::row_tiles, tiles = Shape::tiles;
  static constexpr int depth = head_dim / 16;
  static constexpr int groups = Tile::folded ? Tile::groups : 1;
  static constexpr int group_depth = depth / groups;
  using Scores = float[row_tiles][2 * tiles][4];  // C fragments: columns are tokens

  uint4* q;               // (row_tiles, depth, 32 lanes) A fragments in shared memory
  int page;               // of eight, in centres()
  float score_to_logit;   // what a score still lacks when exp2 sees it
  float logit_scale;
  float q_sums[groups][row_tiles][2];  // as in decode
  float out[row_tiles][2 * depth][4];  // column 2i of fragment pair k: dimensions 16k + 4i, 4i+1 | 4i+2, 4i+3
  float maximum[row_tiles][2], sum[row_tiles][2];
  float bias[groups][row_tiles][2];

  // The lane's four values of dimensions 16 k + 4 i of query token `row`; 0 beyond the sequence's tokens.
  __device__ __forceinline__ static void load_query(const PrefillParams& p, const std::uint16_t* head_q, int row, int tokens, int at,
                                                    float (&x)[4]) {
    uint2 raw = make_uint2(0, 0);
    if (row < tokens) raw = *reinterpret_cast<const uint2*>(head_q + row * p.q_stride + at);
    const float2 a = load2(raw.x, p.view.is_bf16), b = load2(raw.y, p.view.is_bf16);
    x[0] = a.x, x[1] = a.y, x[2] = b.x, x[3] = b.y;
  }

  // head_q: this head's query of the sequence's first new token; first_row: the warp's first
  __device__ __forceinline__ void begin(const PrefillParams& p, const std::uint16_t* head_q, int first_row, int tokens, int lane) {
    const int g = lane / 4, i = lane % 4;
    float x[4], shrink = 1.f;
    logit_scale = p.scale;
    if constexpr (Tile::folded) {  // a power of two brings the queries into half precision's range, exactly
      float largest = 0.f;
      for (int m = 0; m < 2 * row_tiles; ++m)
        for (int k = 0; k < depth; ++k) {
          load_query(p, head_q, first_row + m * 8 + g, tokens, k * 16 + 4 * i, x);
          largest = fmaxf(largest, fmaxf(fmaxf(fabsf(x[0]), fabsf(x[1])), fmaxf(fabsf(x[2]), fabsf(x[3]))));
        }
      largest = max_over_columns(max_over_rows(largest));
      const int exponent = largest > 0.f ? min(max(ilogbf(largest), -100), 100) : 0;
      shrink = exp2f(static_cast<float>(11 - exponent));
      logit_scale *= exp2f(static_cast<float>(exponent - 11)) * Un::even_unit;
    }
    score_to_logit = Tile::folded || p.soft_cap > 0.f ? 1.f : logit_scale;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
      for (int r = 0; r < groups; ++r) {
        float total[4] = {};
        for (int k = r * group_depth; k < (r + 1) * group_depth; ++k) {
          uint4 a;
          load_query(p, head_q, first_row + m * 16 + g, tokens, k * 16 + 4 * i, x);
          for (float& value : x) value *= shrink;
          Un::template query<T>(x, a.x, a.z);
          load_query(p, head_q, first_row + m * 16 + 8 + g, tokens, k * 16 + 4 * i, x);
          for (float& value : x) value *= shrink;
          Un::template query<T>(x, a.y, a.w);
          q[(m * depth + k) * warp_size + lane] = a;
          if constexpr (Tile::folded) mma<T>(total, a.x, a.y, a.z, a.w, Un::low_ones, Un::high_ones);
        }
        constexpr float unit = (Tile::symmetric() ? -Un::zero : 1.f) / Un::even_unit;
        q_sums[r][m][0] = total[0] * unit, q_sums[r][m][1] = total[2] * unit;
      }
      for (int c = 0; c < 2; ++c) maximum[m][c] = -1e30f, sum[m][c] = 0.f;
      for (int k = 0; k < 2 * depth; ++k)
        for (int c = 0; c < 4; ++c) out[m][k][c] = 0.f;
      for (int r = 0; r < groups; ++r)
        for (int c = 0; c < 2; ++c) bias[r][m][c] = 0.f;
    }
    page = 0;
    if constexpr (Stored::may_centre)
      for (int n = lane; n < Shape::mean_pages * Shape::warp_rows; n += warp_size) centres()[n] = 0.f;
  }

  // (mean_pages, warp_rows) behind the queries: what the mean that a page's keys were stored without adds to a row's scores
  __device__ __forceinline__ float* centres() const { return reinterpret_cast<float*>(q + row_tiles * depth * warp_size); }

  // means: of eight pages; without_first: the first page's keys are stored as they are
  __device__ __forceinline__ void find_centres(const std::byte* means, bool without_first, int lane) const {
    const int g = lane / 4, i = lane % 4;
    __syncwarp();
#pragma unroll 1
    for (int m = 0; m < row_tiles; ++m) {
      float total[4] = {};
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        const uint4 a = q[(m * depth + k) * warp_size + lane];
        const Words<2> b = Centre<head_dim>::fragment(means + g * Shape::mean_stride, k, lane);
        mma<T>(total, a.x, a.y, a.z, a.w, b.at[0], b.at[1]);
      }
#pragma unroll
      for (int c = 0; c < 4; ++c)
        centres()[(2 * i + c % 2) * Shape::warp_rows + m * 16 + c / 2 * 8 + g] = without_first && 2 * i + c % 2 == 0 ? 0.f : total[c] * (logit_scale / Un::even_unit);
    }
    __syncwarp();
  }
  // Of row g + 8 h of row tile m.
  __device__ __forceinline__ float centre(int m, int h, int lane) const {
    if constexpr (Stored::may_centre) return centres()[page * Shape::warp_rows + m * 16 + h * 8 + lane / 4];
    return 0.f;
  }

  // s = queries keys^T over one step, scales applied for a folded codec.
  __device__ __forceinline__ void scores(const std::byte* stage, int lane, Scores& s) const {
#pragma unroll
    for (int r = 0; r < groups; ++r) {
      Scores raw;
#pragma unroll
      for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int n = 0; n < 2 * tiles; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c) raw[m][n][c] = 0.f;
#pragma unroll
      for (int k = r * group_depth; k < (r + 1) * group_depth; ++k) {
        uint4 a[row_tiles];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) a[m] = q[(m * depth + k) * warp_size + lane];
#pragma unroll
        for (int t = 0; t < tiles; ++t) {
          const Fragment b = key_fragment(stage + t * Tile::bytes, k, lane);
#pragma unroll
          for (int m = 0; m < row_tiles; ++m) {
            mma<T>(raw[m][2 * t], a[m].x, a[m].y, a[m].z, a[m].w, b.a0, b.a2);
            mma<T>(raw[m][2 * t + 1], a[m].x, a[m].y, a[m].z, a[m].w, b.a1, b.a3);
          }
        }
      }
#pragma unroll
      for (int t = 0; t < tiles; ++t) {
        TokenScales token[2][2];  // token 2i + c of the first and last eight
        if constexpr (Tile::folded)
          for (int c = 0; c < 2; ++c) load_scales<Tile>(stage + t * Tile::bytes, r, lane % 4 * 2 + c, token[0][c], token[1][c]);
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
          for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              float x = raw[m][2 * t + h][c];
              if constexpr (Tile::folded) {
                const TokenScales& of = token[h][c % 2];
                if constexpr (Tile::symmetric()) x = (x + q_sums[r][m][c / 2]) * (of.key_scale * logit_scale);
                else x = fmaf(of.key_scale * logit_scale, x, of.key_bias * logit_scale * q_sums[r][m][c / 2]);
              }
              s[m][2 * t + h][c] = r == 0 ? x : s[m][2 * t + h][c] + x;
            }
      }
    }
  }

  // Fragment k of a tile. Consecutive k share a load where a lane's run holds several fragments: the compiler merges them.
  __device__ __forceinline__ static Fragment key_fragment(const std::byte* tile, int k, int lane) {
    const int word = k * Tile::fragment_words;
    const Words<Tile::run> words = load_words<Tile::run>(tile + Tile::word_offset(word / Tile::run * Tile::run, lane));
    return Un::keys(words.at + word % Tile::run);
  }
  __device__ __forceinline__ static Fragment value_fragment(const std::byte* tile, int k, int lane) {
    const int word = k * Tile::fragment_words;
    const Words<Tile::run> words = load_words<Tile::run>(tile + Tile::part_bytes + Tile::word_offset(word / Tile::run * Tile::run, lane));
    return Un::values(words.at + word % Tile::run);
  }

  // Adds the step at token `begin`; position: of the warp's first row.
  __device__ __forceinline__ void add(const PrefillParams& p, const std::byte* stage, int begin, int position, int lane) {
    Scores s;
    scores(stage, lane, s);
    if (p.soft_cap > 0.f) {
#pragma unroll
      for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int n = 0; n < 2 * tiles; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c)
            s[m][n][c] = tanh_exp2(s[m][n][c] * (Tile::folded ? 1.f : logit_scale) + centre(m, c / 2, lane)) * (p.soft_cap * 1.44269504f);
    }
    const bool diagonal = begin + Shape::step_tokens - 1 > position;
    const bool edge = p.window > 0 && begin <= position + Shape::warp_rows - 1 - p.window;
    if (diagonal || edge) {
#pragma unroll
      for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int n = 0; n < 2 * tiles; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int row = position + m * 16 + c / 2 * 8 + lane / 4, token = begin + n * 8 + lane % 4 * 2 + c % 2;
            if (token > row || (p.window > 0 && token <= row - p.window)) s[m][n][c] = -INFINITY;
          }
    }
    softmax(s, p.soft_cap > 0.f, lane);
#pragma unroll
    for (int t = 0; t < tiles; ++t) add_values(stage + t * Tile::bytes, t, lane, s);
  }

  // capped: the scores are complete; else they lack what the mean adds.
  __device__ __forceinline__ void softmax(Scores& s, bool capped, int lane) {
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float lacking = capped ? 0.f : centre(m, h, lane);
        float larger = -INFINITY;
#pragma unroll
        for (int n = 0; n < 2 * tiles; ++n) larger = fmaxf(larger, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        larger = fmaxf(maximum[m][h], max_over_columns(larger) + lacking);
        if (__any_sync(full_warp, larger > maximum[m][h])) {
          const float shrink = exp2_approx((maximum[m][h] - larger) * score_to_logit);
          maximum[m][h] = larger;
          sum[m][h] *= shrink;
#pragma unroll
          for (int k = 0; k < 2 * depth; ++k) out[m][k][2 * h] *= shrink, out[m][k][2 * h + 1] *= shrink;
          for (int r = 0; r < groups; ++r) bias[r][m][h] *= shrink;
        }
        const float shift = (lacking - larger) * score_to_logit;
#pragma unroll
        for (int n = 0; n < 2 * tiles; ++n)
#pragma unroll
          for (int c = 2 * h; c < 2 * h + 2; ++c) {
            s[m][n][c] = exp2_approx(fmaf(s[m][n][c], score_to_logit, shift));
            sum[m][h] += s[m][n][c];
          }
      }
  }

  __device__ __forceinline__ void add_values(const std::byte* tile, int t, int lane, const Scores& p) {
#pragma unroll
    for (int r = 0; r < groups; ++r) {
      std::uint32_t a[row_tiles][4];
      TokenScales token[2][2];
      if constexpr (Tile::folded)
        for (int c = 0; c < 2; ++c) load_scales<Tile>(tile, r, lane % 4 * 2 + c, token[0][c], token[1][c]);
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float(&x)[4] = p[m][2 * t + h];
          if constexpr (Tile::folded) {
            const float w0 = token[h][0].value_scale * weight_gain, w1 = token[h][1].value_scale * weight_gain;
            a[m][2 * h] = pack2<T>(x[0] * w0, x[1] * w1);
            a[m][2 * h + 1] = pack2<T>(x[2] * w0, x[3] * w1);
            const float b0 = Tile::symmetric() ? token[h][0].value_scale * -Un::zero : token[h][0].value_bias;
            const float b1 = Tile::symmetric() ? token[h][1].value_scale * -Un::zero : token[h][1].value_bias;
            bias[r][m][0] += x[0] * b0 + x[1] * b1;
            bias[r][m][1] += x[2] * b0 + x[3] * b1;
          } else {
            a[m][2 * h] = pack2<T>(x[0], x[1]);
            a[m][2 * h + 1] = pack2<T>(x[2], x[3]);
          }
        }
      }
#pragma unroll
      for (int k = r * group_depth; k < (r + 1) * group_depth; ++k) {
        const Fragment b = value_fragment(tile, k, lane);
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
          mma<T>(out[m][2 * k], a[m][0], a[m][1], a[m][2], a[m][3], b.a0, b.a2);
          mma<T>(out[m][2 * k + 1], a[m][0], a[m][1], a[m][2], a[m][3], b.a1, b.a3);
        }
      }
    }
  }

  // Writes the rows below `tokens` of this head; head_out: of the sequence's first new token.
  __device__ __forceinline__ void end(const PrefillParams& p, std::uint16_t* head_out, int first_row, int tokens, int lane) {
    const int g = lane / 4, i = lane % 4;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = first_row + m * 16 + h * 8 + g;
        const float scale = 1.f / sum_over_columns(sum[m][h]);
        float shift[groups];
        for (int r = 0; r < groups; ++r) shift[r] = Tile::folded ? sum_over_columns(bias[r][m][h]) : 0.f;
        float* turned = reinterpret_cast<float*>(q);  // (8, head_dim): the queries are no longer needed
        __syncwarp();
#pragma unroll
        for (int k = 0; k < depth; ++k) {
          float x[4];
#pragma unroll
          for (int d = 0; d < 4; ++d) {
            x[d] = out[m][2 * k + d % 2][2 * h + d / 2];
            if constexpr (Tile::folded) x[d] = x[d] * ((d % 2 ? Un::odd_unit : Un::even_unit) / weight_gain) + shift[k / group_depth];
            x[d] *= scale;
          }
          if (p.view.hadamard) {
            *reinterpret_cast<float4*>(turned + g * head_dim + k * 16 + 4 * i) = make_float4(x[0], x[1], x[2], x[3]);
          } else if (row < tokens) {
            *reinterpret_cast<uint2*>(head_out + row * p.out_stride + k * 16 + 4 * i) =
                make_uint2(store2(x[0], x[1], p.view.is_bf16), store2(x[2], x[3], p.view.is_bf16));
          }
        }
        if (!p.view.hadamard) continue;
        __syncwarp();
        for (int j = 0; j < 8; ++j) {
          const int target = first_row + m * 16 + h * 8 + j;
          WarpRow<head_dim> result;
          result.load(turned + j * head_dim, lane);
          result.hadamard(lane);
          if (target < tokens) result.store(head_out + target * p.out_stride, p.view.is_bf16, lane);
        }
      }
  }
};

// Grid: (query heads, row blocks with the longest first, sequences). Sequences with one new token are decode's.
template <class Codec, int head_dim, class T>
__global__ void __launch_bounds__(128, 2) prefill_kernel(const PrefillParams p) {
  using Shape = PrefillShape<Codec, head_dim>;
  using Stored = typename Shape::Stored;
  using Rows = PrefillRows<Codec, head_dim, T>;
  extern __shared__ __align__(128) std::byte shared[];
  const KvView& view = p.view;
  const int head = blockIdx.x, s = blockIdx.z, thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size;
  const int tokens = view.new_tokens(s), first_row = (gridDim.y - 1 - blockIdx.y) * Shape::rows;
  if (tokens <= 1 || first_row >= tokens) return;

  const int length = view.kv_lengths[s], position = length - tokens + first_row;
  const int end = min(length, position + Shape::rows);
  const int begin = p.window > 0 ? max(0, position - p.window + 1) / Shape::step_tokens : 0;
  const int steps = (end + Shape::step_tokens - 1) / Shape::step_tokens;
  const int kv_head = (head + view.group_offset) / view.group_size;
  const std::int32_t* table = view.block_tables + s * view.block_table_stride;
  std::byte* stages = shared + Shape::query_bytes;

  // A page's id is fetched a step before it is needed.
  const auto block_of = [&](int step) { return step < steps ? table[step * Shape::step_tokens / view.block_tokens] : 0; };
  const auto issue = [&](int step, int block) {
    if (step < steps) {
      const int tile = step * Shape::step_tokens % view.block_tokens / tile_tokens;
      const std::byte* source = view.tile(block, kv_head, tile, Stored::bytes);
      const std::uint32_t target = shared_address(stages + (step - begin) % Shape::stages * Shape::stage_bytes);
#pragma unroll
      for (int n = 0; n < Shape::stage_bytes; n += 16 * Shape::threads)
        if (n + 16 * Shape::threads <= Shape::stage_bytes || n + 16 * thread < Shape::stage_bytes)
          copy16_async(target + n + 16 * thread, source + n + 16 * thread);
    }
    commit_copies();
  };

  // Means of centred keys: number r is that which page `first_page + r` is stored without; 16 threads copy one.
  const int page_steps = view.block_tokens / Shape::step_tokens, first_page = begin / page_steps, pages = (steps - 1) / page_steps + 1 - first_page;
  constexpr int mean_threads = Shape::threads / Shape::mean_pages;
  std::byte* const means = shared + Shape::query_bytes + Shape::tiles * Shape::tile_bytes;
  const auto mean_block = [&](int r) { return r < pages && first_page + r > 0 ? table[first_page + r - 1] : -1; };
  const auto copy_mean = [&](int r, int block) {
    if (block < 0) return;
    const std::byte* source = view.mean(block, kv_head, Stored::mean_bytes);
    const std::uint32_t target = shared_address(means + r % (2 * Shape::mean_pages) * Shape::mean_stride);
    for (int n = 16 * (thread % mean_threads); n < Stored::Mean::copied; n += 16 * mean_threads) copy16_async(target + n, source + n);
  };
  const bool centred = Stored::may_centre && view.centred;
  int page = 0, page_step = begin % page_steps, next_mean = -1;  // page: from first_page on
  if (centred) copy_mean(thread / mean_threads, mean_block(thread / mean_threads));

  issue(begin, block_of(begin));
  int block = block_of(begin + 1);
  const std::int64_t start = view.query_starts[s];
  const int warp_row = first_row + warp * Shape::warp_rows, warp_position = position + warp * Shape::warp_rows;
  Rows rows;
  rows.q = reinterpret_cast<uint4*>(shared + warp * Shape::warp_bytes);
  rows.begin(p, p.q + start * p.q_stride + head * head_dim, warp_row, tokens, lane);

  for (int step = begin; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();
    if (centred && (page_step == 0 || step == begin)) {  // a page begins
      const int of_eight = page % Shape::mean_pages, other = page - of_eight + Shape::mean_pages + thread / mean_threads;
      rows.page = of_eight;
      if (of_eight == 0) {
        next_mean = mean_block(other);
        rows.find_centres(means + page % (2 * Shape::mean_pages) * Shape::mean_stride, first_page + page == 0, lane);
      } else if (of_eight == 1) {
        copy_mean(other, next_mean);
      }
    }
    if (++page_step == page_steps) page_step = 0, ++page;
    issue(step + 1, block);
    block = block_of(step + 2);
    const int token = step * Shape::step_tokens;
    std::byte* stage = stages + (step - begin) % Shape::stages * Shape::stage_bytes;
    if constexpr (Stored::kind == TileKind::packed) {
      std::byte* expanded = stages + Shape::stages * Shape::stage_bytes;
      expand_tiles<Codec, Stored, typename Rows::Tile, T>(stage, expanded, Shape::tiles, length - token, thread, Shape::threads);
      stage = expanded;
      __syncthreads();
    } else if (token + Shape::step_tokens > length) {
      clear_tail<Stored>(stage, Shape::tiles, length - token, thread, Shape::threads);
      __syncthreads();
    }
    const int first = p.window > 0 ? warp_position - p.window + 1 : 0, last = warp_position + Shape::warp_rows - 1;
    if (token <= last && token + Shape::step_tokens > first) rows.add(p, stage, token, warp_position, lane);
  }
  rows.end(p, p.out + start * p.out_stride + head * head_dim, warp_row, tokens, lane);
}

}  // namespace lmkit::kernels::cuda
