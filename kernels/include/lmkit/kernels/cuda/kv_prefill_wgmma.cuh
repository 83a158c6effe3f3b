// SPDX-License-Identifier: Apache-2.0
//
// Prefill attention as in kv_prefill.cuh, for sm_90a: the products of a warpgroup, FlashAttention-3's schedule (arXiv:2407.08608).
//
// A block takes 128 query tokens of one head. Two warpgroups own 64 of them each, with scores and outputs in registers; a third
// brings steps of keys and values into shared memory (kv_prefill_feed.cuh), as far ahead as there are slots. A warpgroup starts
// the scores of a step together with the values of the step before, and does its softmax while the other's products run: they
// take turns at starting products.
//
// Built for anything else than sm_90a the kernel is empty; what says so is that it has no shared memory of its own.
#pragma once

#include <lmkit/kernels/cuda/kv_prefill.cuh>
#include <lmkit/kernels/cuda/kv_prefill_feed.cuh>

namespace lmkit::kernels::cuda {

template <class Codec, int head_dim>
struct WarpgroupShape {
  using Feed = PrefillFeed<Codec, head_dim>;
  static constexpr int consumers = 2, threads = (consumers + 1) * warpgroup_threads;
  static constexpr int group_rows = 64, rows = consumers * group_rows;
  static constexpr int group_query_bytes = group_rows * head_dim * 2, query_bytes = consumers * group_query_bytes;
  static constexpr int shared_bytes = query_bytes + SlotRing::slots * Feed::slot_bytes + Feed::mean_places * Feed::mean_bytes;
  // Of a thread; the compiler gives each of 384 threads 168. What feeders need to hold a step's codes, attention does without.
  static constexpr int feeder_registers = Feed::Stored::bits() == 8 ? 72 : Feed::Stored::bits() == 4 ? 56 : 40;
  static constexpr int registers = (3 * 168 - feeder_registers) / 2;
  static_assert(shared_bytes <= 226 * 1024);
};

// A warpgroup's 64 rows. Rows g and g + 8 of each warp's 16 are this lane's.
template <class Codec, int head_dim, class T>
struct WarpgroupRows {
  using Shape = WarpgroupShape<Codec, head_dim>;
  using Feed = typename Shape::Feed;
  static constexpr int columns = Feed::step_tokens;
  static constexpr int depth = Feed::depth, pages = Feed::pages;
  static constexpr int parts = head_dim > 128 ? 2 : 1, part_columns = head_dim / parts;

  float score_to_logit;  // what a score still lacks when exp2 sees it
  float s[columns / 2];
  float centres[4];  // what the means of eight pages add to scores, a C fragment
  std::uint32_t weights[Feed::tiles][4];
  float out[parts][part_columns / 2];
  float maximum[2], sum[2], shrink[2];

  static constexpr bool fetches_early = head_dim <= 128;  // the next chunk's queries, while registers last
  using Queries = uint2[2][depth];  // dimensions 16 k + 4i .. 4i+3 of rows g and g + 8

  // A warp's 16 queries.
  __device__ __forceinline__ static void fetch(const PrefillParams& p, const PrefillChunk& chunk, int warp_row, int lane, Queries& x) {
    const int g = lane / 4, i = lane % 4, first_row = chunk.first_row + warp_row;
    const std::uint16_t* head_q = p.q + p.view.query_starts[chunk.sequence] * p.q_stride + chunk.head * head_dim;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        const int row = first_row + h * 8 + g;
        x[h][k] = make_uint2(0, 0);
        if (row < chunk.tokens) x[h][k] = *reinterpret_cast<const uint2*>(head_q + row * p.q_stride + k * 16 + 4 * i);
      }
  }

  // Puts them to `target`, (64, head_dim) in cores, and starts their attention.
  __device__ __forceinline__ void begin(const PrefillParams& p, Queries& x, std::byte* target, int lane) {
    const int g = lane / 4, i = lane % 4, warp = threadIdx.x / warp_size % 4;
    score_to_logit = p.scale;
    if constexpr (Feed::Stored::folded)
      if (p.view.is_bf16) score_to_logit *= to_half(x);
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int k = 0; k < depth; ++k)
        *reinterpret_cast<uint2*>(target + (2 * warp + h) * Feed::token_cores_bytes + (2 * k + i / 2) * Feed::core_bytes + g * 16 + i % 2 * 8) =
            Feed::query(x[h][k]);
#pragma unroll
    for (int r = 0; r < parts; ++r)
#pragma unroll
      for (int n = 0; n < part_columns / 2; ++n) out[r][n] = 0.f;
    for (int h = 0; h < 2; ++h) maximum[h] = -INFINITY, sum[h] = 0.f;
  }

  // bf16 to half, with a power of two that brings a warp's queries into range, exactly; returns what takes it off again.
  __device__ __forceinline__ static float to_half(uint2 (&x)[2][depth]) {
    float largest = 0.f;
#pragma unroll
    for (int n = 0; n < 2 * depth; ++n)
      for (const std::uint32_t word : {x[n / depth][n % depth].x, x[n / depth][n % depth].y}) {
        const float2 y = unpack_bfloat2(word);
        largest = fmaxf(largest, fmaxf(fabsf(y.x), fabsf(y.y)));
      }
    largest = max_over_columns(max_over_rows(largest));
    const int exponent = largest > 0.f ? min(max(ilogbf(largest), -100), 100) : 0;
    const float factor = exp2f(static_cast<float>(8 - exponent));
#pragma unroll
    for (int n = 0; n < 2 * depth; ++n)
      for (std::uint32_t* word : {&x[n / depth][n % depth].x, &x[n / depth][n % depth].y}) {
        const float2 y = unpack_bfloat2(*word);
        *word = pack2<__half>(y.x * factor, y.y * factor);
      }
    return exp2f(static_cast<float>(exponent - 8));
  }

  __device__ __forceinline__ void start_scores(std::uint32_t queries, std::uint32_t keys) {
    const std::uint64_t a = core_matrix(queries, Feed::core_bytes, Feed::token_cores_bytes);
    const std::uint64_t b = core_matrix(keys, Feed::core_bytes, Feed::token_cores_bytes);
#pragma unroll
    for (int k = 0; k < depth; ++k) Product<columns, T>::add(s, a + k * (2 * Feed::core_bytes >> 4), b + k * (2 * Feed::core_bytes >> 4), k > 0);
    commit_products();
  }
  __device__ __forceinline__ void start_centres(std::uint32_t queries, std::uint32_t means) {
    const std::uint64_t a = core_matrix(queries, Feed::core_bytes, Feed::token_cores_bytes);
    const std::uint64_t b = core_matrix(means, Feed::core_bytes, Feed::token_cores_bytes);
#pragma unroll
    for (int k = 0; k < depth; ++k) Product<8, T>::add(centres, a + k * (2 * Feed::core_bytes >> 4), b + k * (2 * Feed::core_bytes >> 4), k > 0);
    commit_products();
  }
  __device__ __forceinline__ void start_values(std::uint32_t values) {
    const std::uint64_t b = core_matrix(values, Feed::token_cores_bytes, Feed::core_bytes);
#pragma unroll
    for (int t = 0; t < Feed::tiles; ++t)
#pragma unroll
      for (int r = 0; r < parts; ++r)
        Product<part_columns, T>::add(out[r], weights[t], b + (t * (2 * Feed::token_cores_bytes >> 4) + r * (part_columns / 8 * Feed::core_bytes >> 4)), 1);
    commit_products();
  }
  __device__ __forceinline__ void hold_out() {
#pragma unroll
    for (int r = 0; r < parts; ++r) hold(out[r]);
  }

  // Scores of the step at token `begin` become probabilities, relative to the largest score so far; position: of the warp's first
  // row; page: of the eight in `centres` that the step starts with.
  __device__ __forceinline__ void softmax(const PrefillParams& p, int begin, int position, int page, int lane) {
    float centre[pages][2];  // what the means that keys were stored without add to rows g and g + 8
    for (int h = 0; h < 2; ++h)
      for (int n = 0; n < pages; ++n) {
        centre[n][h] = 0.f;
        if constexpr (Feed::Stored::may_centre)
          if (p.view.centred) centre[n][h] = __shfl_sync(full_warp, (page + n) % 2 ? centres[2 * h + 1] : centres[2 * h], (lane & ~3) + (page + n) / 2);
      }
    if (p.soft_cap > 0.f) {
#pragma unroll
      for (int n = 0; n < Feed::step_tokens / 2; ++n)
        s[n] = tanh_exp2((s[n] + centre[n / 32][n / 2 % 2]) * score_to_logit) * (p.soft_cap * 1.44269504f);
      for (int h = 0; h < 2; ++h)
        for (int n = 0; n < pages; ++n) centre[n][h] = 0.f;
    }
    const float to_logit = p.soft_cap > 0.f ? 1.f : score_to_logit;
    const bool diagonal = begin + Feed::step_tokens - 1 > position;
    const bool edge = p.window > 0 && begin <= position + 15 - p.window;
    if (diagonal || edge) {
      const int row = position + lane / 4 - begin - Feed::first_token(0, lane % 4);
      const int oldest = p.window > 0 ? row - p.window : -0x40000000;
#pragma unroll
      for (int n = 0; n < Feed::step_tokens / 8; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int token = Feed::first_token(n, 0) + c % 2 - c / 2 * 8;
          if (token > row || token <= oldest) s[4 * n + c] = -INFINITY;
        }
    }
    float larger[2] = {maximum[0], maximum[1]};  // both rows at once: a shuffle takes its time while products run
#pragma unroll
    for (int r = 0; r < pages; ++r) {
      float of_page[2] = {-INFINITY, -INFINITY};
#pragma unroll
      for (int n = 16 * r; n < 16 * r + 16; ++n) of_page[n % 2] = fmaxf(of_page[n % 2], fmaxf(s[2 * n], s[2 * n + 1]));
      for (int h = 0; h < 2; ++h) larger[h] = fmaxf(larger[h], of_page[h] + centre[r][h]);
    }
    for (int across = 1; across <= 2; ++across)
      for (int h = 0; h < 2; ++h) larger[h] = fmaxf(larger[h], __shfl_xor_sync(full_warp, larger[h], across));
    float shift[pages][2];
    for (int h = 0; h < 2; ++h) {
      const float top = larger[h] == -INFINITY ? 0.f : larger[h];  // no token yet
      shrink[h] = exp2_approx((maximum[h] - top) * to_logit);
      maximum[h] = larger[h];
      sum[h] *= shrink[h];
      for (int r = 0; r < pages; ++r) shift[r][h] = (centre[r][h] - top) * to_logit;
    }
    float total[2][2] = {};
#pragma unroll
    for (int n = 0; n < Feed::step_tokens / 2; ++n) {
      const int h = n / 2 % 2;
      s[n] = exp2_approx(fmaf(s[n], to_logit, shift[n / 32][h]));
      total[h][n % 2] += s[n];
    }
    for (int h = 0; h < 2; ++h) sum[h] += total[h][0] + total[h][1];
  }
  // Probabilities become the left operand of the next product with values.
  __device__ __forceinline__ void weigh() {
#pragma unroll
    for (int t = 0; t < Feed::tiles; ++t)
#pragma unroll
      for (int n = 0; n < 4; ++n) weights[t][n] = pack2<T>(s[8 * t + 2 * n], s[8 * t + 2 * n + 1]);
  }
  __device__ __forceinline__ void shrink_out() {
    if (!__any_sync(full_warp, shrink[0] != 1.f || shrink[1] != 1.f)) return;
#pragma unroll
    for (int r = 0; r < parts; ++r)
#pragma unroll
      for (int n = 0; n < part_columns / 2; ++n) out[r][n] *= shrink[n / 2 % 2];
  }

  // Writes a warp's rows, as far as there are tokens; scratch: (8, head_dim) floats of the warp.
  __device__ __forceinline__ void end(const PrefillParams& p, const PrefillChunk& chunk, float* scratch, int warp_row, int lane) {
    const int g = lane / 4, i = lane % 4, first_row = chunk.first_row + warp_row, tokens = chunk.tokens;
    std::uint16_t* head_out = p.out + p.view.query_starts[chunk.sequence] * p.out_stride + chunk.head * head_dim;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + h * 8 + g;
      const float scale = 1.f / sum_over_columns(sum[h]);
      constexpr int blocks = part_columns / 8;
      const auto value = [&](int n, int c) { return out[n / blocks][n % blocks * 4 + 2 * h + c] * scale; };
      if (!p.view.hadamard) {
        if (row >= tokens) continue;
#pragma unroll
        for (int n = 0; n < head_dim / 8; ++n)
          *reinterpret_cast<std::uint32_t*>(head_out + row * p.out_stride + n * 8 + 2 * i) = store2(value(n, 0), value(n, 1), p.view.is_bf16);
        continue;
      }
      __syncwarp();
#pragma unroll
      for (int n = 0; n < head_dim / 8; ++n) *reinterpret_cast<float2*>(scratch + g * head_dim + n * 8 + 2 * i) = make_float2(value(n, 0), value(n, 1));
      __syncwarp();
      for (int j = 0; j < 8; ++j) {
        const int target = first_row + h * 8 + j;
        WarpRow<head_dim> result;
        result.load(scratch + j * head_dim, lane);
        result.hadamard(lane);
        if (target < tokens) result.store(head_out + target * p.out_stride, p.view.is_bf16, lane);
      }
    }
  }
};

// A warpgroup's attention: its rows of the block's chunks.
template <class Codec, int head_dim, class T>
class PrefillWarpgroup {
  using Rows = WarpgroupRows<Codec, head_dim, T>;
  using Shape = typename Rows::Shape;
  using Feed = typename Rows::Feed;
  static constexpr int both = 2 * warpgroup_threads;

 public:
  // queries: in shared memory, (64, head_dim) in cores; slots: as the feeder's; number: 0 or 1
  __device__ __forceinline__ PrefillWarpgroup(const PrefillParams& p, const SlotRing& ring, std::byte* queries, std::byte* slots, int number)
      : p_(p), ring_(ring), queries_(queries), slots_(shared_address(slots)), number_(number) {}

  __device__ __forceinline__ void attend() {
    PrefillChunks chunks;
    PrefillChunk chunk;
    typename Rows::Queries fetched;
    bool more = chunks.next(p_, Shape::rows, Feed::step_tokens, chunk);
    if (more) Rows::fetch(p_, chunk, warp_row(), lane(), fetched);
    if (number_ == 1) numbered_arrive(1, both);  // the other's turn first
    while (more) {
      const PrefillChunk now = chunk;
      const bool alone = now.tokens - now.first_row <= Shape::group_rows;  // warpgroup 0 is: the other has no rows
      const auto prefetch = [&](bool early) {
        if (early) more = chunks.next(p_, Shape::rows, Feed::step_tokens, chunk);
        if (more && early == Rows::fetches_early) Rows::fetch(p_, chunk, warp_row(), lane(), fetched);
      };
      if (alone && number_ == 1) {
        pass(now.steps - now.begin);
        prefetch(true);
        if (!Rows::fetches_early) prefetch(false);
        continue;
      }
      Rows rows;
      rows.begin(p_, fetched, queries_, lane());
      publish_to_products();
      wait_own();
      add_steps(rows, now, alone);
      prefetch(true);
      wait_products<0>();
      rows.hold_out();
      release(uses_ + 1);
      uses_ += 2;
      if (!Rows::fetches_early) prefetch(false);
      wait_own();  // the queries are no longer needed
      rows.end(p_, now, reinterpret_cast<float*>(queries_ + threadIdx.x / warp_size % 4 * 2 * Feed::token_cores_bytes), warp_row(), lane());
      __syncwarp();
    }
  }

 private:
  // All steps of a chunk; the last one's values are still under way.
  __device__ __forceinline__ void add_steps(Rows& rows, const PrefillChunk& chunk, bool alone) {
    const int position = chunk.position + warp_row(), steps = chunk.steps - chunk.begin;
    const std::uint32_t q = shared_address(queries_);
    // what means add to the scores of this step and of those after it
    const auto find_centres = [&](int step) {
      if constexpr (Feed::Stored::may_centre) {
        if (!p_.view.centred || step % Feed::mean_steps != 0) return;
        fence_products();
        rows.start_centres(q, slots_ + SlotRing::slots * Feed::slot_bytes + eights_++ % Feed::mean_places * Feed::mean_bytes);
        wait_products<0>();
        hold(rows.centres);
      }
    };

    ring_.wait_full(uses_);
    find_centres(0);
    fence_products();
    rows.start_scores(q, slot(uses_));
    wait_products<0>();
    hold(rows.s);
    release(uses_);
    rows.softmax(p_, chunk.begin * Feed::step_tokens, position, 0, lane());
    rows.weigh();
    ring_.wait_full(uses_ + 1);
#pragma unroll 1
    for (int step = 1; step < steps; ++step, uses_ += 2) {
      ring_.wait_full(uses_ + 2);
      find_centres(step);
      if (!alone) numbered_wait(1 + number_, both);  // this warpgroup's turn
      fence_products();
      rows.start_scores(q, slot(uses_ + 2));
      rows.start_values(slot(uses_ + 1));
      if (!alone) numbered_arrive(2 - number_, both);  // the other's
      wait_products<1>();
      hold(rows.s);
      release(uses_ + 2);
      rows.softmax(p_, (chunk.begin + step) * Feed::step_tokens, position, step % Feed::mean_steps * Feed::pages, lane());
      hold(rows.s);
      ring_.wait_full(uses_ + 3);  // here, as its branch keeps the assembler from doing the softmax after the wait for products
      wait_products<0>();
      rows.hold_out();
      release(uses_ + 1);
      rows.shrink_out();
      rows.weigh();
    }
    fence_products();
    rows.start_values(slot(uses_ + 1));
  }

  // A chunk of which this warpgroup has no rows.
  __device__ __forceinline__ void pass(int steps) {
    for (const int last = uses_ + 2 * steps; uses_ < last; ++uses_) {
      ring_.wait_full(uses_);
      release(uses_);
    }
    if (Feed::Stored::may_centre && p_.view.centred) eights_ += (steps + Feed::mean_steps - 1) / Feed::mean_steps;
  }

  __device__ __forceinline__ void release(int n) const {
    __syncwarp();
    if (lane() == 0) barrier_arrive(ring_.empty_of(n));
  }
  // Barriers 1 and 2 are warpgroups' turns, 3 and 4 their own.
  __device__ __forceinline__ void wait_own() const { numbered_wait(3 + number_, warpgroup_threads); }
  __device__ __forceinline__ std::uint32_t slot(int n) const { return slots_ + n % SlotRing::slots * Feed::slot_bytes; }
  __device__ __forceinline__ static int lane() { return threadIdx.x % warp_size; }
  // The warp's first, in a chunk.
  __device__ __forceinline__ int warp_row() const { return number_ * Shape::group_rows + threadIdx.x / warp_size % 4 * 16; }

  const PrefillParams& p_;
  const SlotRing& ring_;
  std::byte* const queries_;
  const std::uint32_t slots_;
  const int number_;
  int uses_ = 0, eights_ = 0;  // of slots, and of places of means, so far
};

// Grid: at most as many blocks as there are multiprocessors, each of which takes chunks until there are none.
template <class Codec, int head_dim, class T>
__global__ void __launch_bounds__(384, 1) prefill_warpgroup_kernel(const __grid_constant__ PrefillParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shape = WarpgroupShape<Codec, head_dim>;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ std::uint64_t barriers[2 * SlotRing::slots];
  const SlotRing ring{shared_address(barriers), shared_address(barriers + SlotRing::slots)};
  if (threadIdx.x == 0)
    for (int n = 0; n < SlotRing::slots; ++n) {
      barrier_init(ring.full_of(n), warpgroup_threads);
      barrier_init(ring.empty_of(n), Shape::consumers * warpgroup_threads / warp_size);
    }
  __syncthreads();
  const int warpgroup = __shfl_sync(full_warp, threadIdx.x / warpgroup_threads, 0);  // the same for a warp, as the compiler must know
  std::byte* slots = shared + Shape::query_bytes;
  if (warpgroup == Shape::consumers) {
    release_registers<Shape::feeder_registers>();
    PrefillFeeder<Codec, head_dim> feeder(p.view, ring, slots);
    PrefillChunk chunk;
    for (PrefillChunks chunks; chunks.next(p, Shape::rows, Shape::Feed::step_tokens, chunk);) feeder.feed(chunk);
    feeder.finish();
  } else {
    claim_registers<Shape::registers>();
    PrefillWarpgroup<Codec, head_dim, T>(p, ring, shared + warpgroup * Shape::group_query_bytes, slots, warpgroup).attend();
  }
#endif
}

}  // namespace lmkit::kernels::cuda
