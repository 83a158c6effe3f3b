// SPDX-License-Identifier: Apache-2.0
//
// y = x Wᵀ for up to 64 tokens on sm_90a. Cost: the bytes of W, once.
//
// 64 rows of W are the A operand of a warpgroup's product, tokens its B; both lie in shared memory. A cluster shares a tile's
// columns: chunk c, 64 columns, is block c mod splits'. One thread of a block copies W by tensor maps, through a ring of stages that runs on
// from tile to tile. Two warpgroups take tiles in turn: while one adds up and stores, the other multiplies.
//
// With a tile of 64 rows a block keeps its columns of x, which come from L2 once; with a larger one they pass through the ring beside W,
// once a tile.
//
// Budget of a multiprocessor at the read limit (20 bytes a clock), for 8 KB of W and 64 tokens, in 410 clocks: products 128; shared memory
// moves 8 KB in and 16 KB out, 192. A tile's sums are 16 KB to send and to add up, for 64 KB of W where 4096 columns are split in eight.
//
// Every block of a cluster sends its sums of a token to the block that owns the token, which adds up what it is sent in the order of the blocks
// and stores it. There are two places for what is sent: a block sends for a second time after that when it has been sent all of the
// next, which no block sends before it has read the first.
//
// W does not depend on the launch before, so the ring is filled before its end.
//
// A gate takes 32 rows of each half of W where another end takes 64. Built for anything else than sm_90a the kernel is empty; what says
// so is that it has no shared memory of its own.
#pragma once

#include "cluster.cuh"

#include <lmkit/kernels/cuda/wgmma.cuh>
#include <lmkit/kernels/linear.hpp>

#include <cuda.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lmkit::kernels::cuda {

struct WarpgroupParams {
  CUtensorMap weights;        // (rows, cols), in boxes of box_rows x chunk_cols
  CUtensorMap x;              // (tokens, cols), in boxes of all tokens x chunk_cols
  const std::uint16_t* bias;  // (rows), or null
  void* y;                    // (tokens, rows; with a gate rows / 2)
  std::int32_t rows, cols, tokens;
  std::int32_t splits, clusters;  // blocks of a cluster, clusters of the grid
  std::int32_t stages;
  LinearEnd end;
  bool is_f32;  // y
};

namespace warpgroup_gemm {

inline constexpr int groups = 2;                                   // warpgroups that multiply
inline constexpr int threads = groups * warpgroup_threads + warp_size;
inline constexpr int piece_rows = 64, box_rows = 32, chunk_cols = 64;
inline constexpr int row_bytes = chunk_cols * 2, piece_bytes = piece_rows * row_bytes;
inline constexpr int most_stages = 24;

constexpr int chunks_of(int cols) { return (cols + chunk_cols - 1) / chunk_cols; }
// Of the first block of a cluster, which has the most.
constexpr int chunks_of_block(int cols, int splits) { return (chunks_of(cols) + splits - 1) / splits; }

// A kernel's tile: pieces of 64 rows, by so many tokens.
template <int tokens_, int pieces_>
struct Tile {
  static constexpr int tokens = tokens_, pieces = pieces_;
  static constexpr bool keeps_x = pieces == 1;
  static constexpr int x_bytes = tokens * row_bytes;  // of a chunk
  static constexpr int stage_bytes = pieces * piece_bytes + (keeps_x ? 0 : x_bytes);
  static constexpr int sums = tokens * piece_rows;  // of a piece
};

// Shared memory: ring | x, where it is kept | two places for a piece's sums from all blocks | what aligns the first to 1024 bytes
constexpr std::int64_t shared_bytes(int cols, int tokens, int pieces, int splits, int stages) {
  const int x_bytes = tokens * row_bytes;
  const std::int64_t kept = pieces == 1 ? std::int64_t{chunks_of_block(cols, splits)} * x_bytes : stages * x_bytes;
  return stages * pieces * piece_bytes + kept + 2 * tokens * piece_rows * 4 + 1024;
}

// Rows of a piece that are rows of y, and how many pieces there are.
__host__ __device__ constexpr int piece_outputs(LinearEnd end) { return end == LinearEnd::gate ? piece_rows / 2 : piece_rows; }
__host__ __device__ constexpr int outputs_of(int rows, LinearEnd end) { return end == LinearEnd::gate ? rows / 2 : rows; }
__host__ __device__ constexpr int tiles_of(int rows, LinearEnd end, int pieces) {
  const int tile = piece_outputs(end) * pieces;
  return (outputs_of(rows, end) + tile - 1) / tile;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The box at (row, col) of a matrix; what lies outside of it is 0. The barrier counts the bytes of the whole box.
__device__ __forceinline__ void copy_box(std::uint32_t target, const CUtensorMap& matrix, int row, int col, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(target), "l"(&matrix), "r"(col),
               "r"(row), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void prefetch(const CUtensorMap& matrix) { asm volatile("prefetch.tensormap [%0];" ::"l"(&matrix) : "memory"); }

__device__ __forceinline__ float4 load_floats(std::uint32_t address) {
  float4 x;
  asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(address) : "memory");
  return x;
}

// A block's part of the work, and addresses in its shared memory.
struct Block {
  int part, chunks, tile, tiles;  // of the cluster; of a tile; the first and how many there are
  std::uint32_t ring, x, sent;
  std::uint32_t barriers;         // full and free of each stage, landed of each place
  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t free(int stage) const { return barriers + 16 * stage + 8; }
  __device__ std::uint32_t landed(int place) const { return barriers + 16 * most_stages + 8 * place; }
};

// Where a block is among the chunks it multiplies, one after another through all of its tiles.
struct Walk {
  int tile, chunk = 0, stage = 0, lap = 0;
  __device__ __forceinline__ void go_on(const WarpgroupParams& p, const Block& at) {
    if (++chunk == at.chunks) chunk = 0, tile += p.clusters;
    if (++stage == p.stages) stage = 0, ++lap;
  }
};

// --- copies: one thread -------------------------------------------------------------------------------------------------

template <class Shape>
struct Copier {
  const WarpgroupParams& p;
  const Block& at;

  __device__ __forceinline__ int col(const Walk& w) const { return (at.part + w.chunk * p.splits) * chunk_cols; }
  __device__ __forceinline__ bool brings_x(const Walk& w) const { return !Shape::keeps_x || w.tile == at.tile; }

  __device__ __forceinline__ void copy_weights(const Walk& w) const {
    const std::uint32_t full = at.full(w.stage), target = at.ring + w.stage * Shape::stage_bytes;
    arrive_expecting(full, Shape::pieces * piece_bytes + (brings_x(w) ? Shape::x_bytes : 0));
#pragma unroll
    for (int piece = 0; piece < Shape::pieces; ++piece) {
      const int row = (w.tile * Shape::pieces + piece) * piece_outputs(p.end);
      copy_box(target + piece * piece_bytes, p.weights, row, col(w), full);
      copy_box(target + piece * piece_bytes + piece_bytes / 2, p.weights, p.end == LinearEnd::gate ? p.rows / 2 + row : row + box_rows, col(w), full);
    }
  }
  __device__ __forceinline__ void copy_x(const Walk& w) const {
    if (brings_x(w)) copy_box(x_place(at, w), p.x, 0, col(w), at.full(w.stage));
  }
  __device__ __forceinline__ static std::uint32_t x_place(const Block& at, const Walk& w) {
    return Shape::keeps_x ? at.x + w.chunk * Shape::x_bytes : at.ring + w.stage * Shape::stage_bytes + Shape::pieces * piece_bytes;
  }

  // As much of W as the ring holds; returns where it goes on.
  __device__ __forceinline__ Walk fill() const {
    Walk w{at.tile};
    for (; w.lap == 0 && w.tile < at.tiles; w.go_on(p, at)) copy_weights(w);
    return w;
  }
  // Then x for that, and the rest.
  __device__ __forceinline__ void go_on(Walk w) const {
    for (Walk x{at.tile}; x.lap == 0 && x.tile < at.tiles; x.go_on(p, at)) copy_x(x);
    for (; w.tile < at.tiles; w.go_on(p, at)) {
      barrier_wait(at.free(w.stage), w.lap - 1);
      copy_weights(w);
      copy_x(w);
    }
  }
};

// --- sums: a warpgroup ------------------------------------------------------------------------------------------------

// Two neighbours in a row of y, for one token.
struct Pair {
  int row, token;
  bool exists;
  std::int64_t at;
  __device__ __forceinline__ Pair(const WarpgroupParams& p, int row, int token) : row(row), token(token) {
    const int outputs = outputs_of(p.rows, p.end);
    exists = row < outputs && token < p.tokens;
    at = std::int64_t{token} * outputs + row;
  }
  // What y holds there before, if it is added to.
  __device__ __forceinline__ std::uint32_t load_old(const WarpgroupParams& p) const {
    return p.end == LinearEnd::add && exists ? *reinterpret_cast<const std::uint32_t*>(static_cast<const std::uint16_t*>(p.y) + at) : 0;
  }
};

template <class T>
__device__ __forceinline__ float2 load_pair(std::uint32_t bits) { return load2(bits, std::is_same_v<T, __nv_bfloat16>); }

template <class T>
__device__ __forceinline__ float2 add_bias(const WarpgroupParams& p, float2 sum, int row) {
  if (!p.bias) return sum;
  const float2 bias = load_pair<T>(*reinterpret_cast<const std::uint32_t*>(p.bias + row));
  return make_float2(sum.x + bias.x, sum.y + bias.y);
}

// up: the other half's sums, of a gate.
template <class T>
__device__ __forceinline__ void store(const WarpgroupParams& p, const Pair& pair, float2 sum, float2 up, std::uint32_t old) {
  if (!pair.exists) return;
  sum = add_bias<T>(p, sum, pair.row);
  if (p.end == LinearEnd::gate) {
    up = add_bias<T>(p, up, p.rows / 2 + pair.row);
    sum = make_float2(sum.x / (1.f + __expf(-sum.x)) * up.x, sum.y / (1.f + __expf(-sum.y)) * up.y);
  }
  if (p.is_f32) {
    *reinterpret_cast<float2*>(static_cast<float*>(p.y) + pair.at) = sum;
  } else {
    const float2 before = load_pair<T>(old);
    *reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(p.y) + pair.at) = pack2<T>(sum.x + before.x, sum.y + before.y);
  }
}

// The sums of a piece of 64 rows, a C fragment, of which every block of the cluster has a part. round: of the block's pieces.
// The 64 rows of a token lie in the order 0 8 1 9 … 7 15 16 24 …, so that rows g and g + 8 are neighbours, and four in the order are two pairs.
template <class T, class Shape>
__device__ __forceinline__ void add_up(const WarpgroupParams& p, const Block& at, const float (&c)[Shape::tokens / 2], int piece, int round) {
  const int thread = threadIdx.x % warpgroup_threads, lane = thread % warp_size, place = round % 2;
  const int share = Shape::tokens / p.splits;  // tokens of a block
  const std::uint32_t sent = at.sent + place * (Shape::sums * 4);
  if (thread == 0) arrive_expecting(at.landed(place), Shape::sums * 4);
#pragma unroll
  for (int n = 0; n < Shape::tokens / 8; ++n)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int token = 8 * n + lane % 4 * 2 + j, owner = token * p.splits / Shape::tokens;
      const int at_owner = (at.part * share + token - owner * share) * piece_rows + thread / warp_size * 16 + lane / 4 * 2;
      send(sent + 4 * at_owner, make_float2(c[4 * n + j], c[4 * n + 2 + j]), at.landed(place), owner);
    }
  const bool is_gate = p.end == LinearEnd::gate;
  const int quads = piece_outputs(p.end) / 4;
  const auto pair_of = [&](int item, int half) {
    const int quad = item % quads, row = piece * piece_outputs(p.end) + quad / 4 * 16 + quad % 4 * 2 + 8 * half;
    return Pair(p, row, at.part * share + item / quads);
  };
  std::uint32_t old[2];
  for (int half = 0; half < 2; ++half) old[half] = thread < share * quads ? pair_of(thread, half).load_old(p) : 0;
  wait_phase(at.landed(place), round / 2 % 2);
  for (int item = thread; item < share * quads; item += warpgroup_threads) {
    float4 sum{}, up{};
    for (int s = 0; s < p.splits; ++s) {
      const std::uint32_t from = sent + ((s * share + item / quads) * piece_rows + item % quads * 4) * 4;
      const float4 x = load_floats(from);
      sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
      if (!is_gate) continue;
      const float4 u = load_floats(from + piece_rows / 2 * 4);
      up.x += u.x, up.y += u.y, up.z += u.z, up.w += u.w;
    }
    const Pair low = pair_of(item, 0), high = pair_of(item, 1);
    store<T>(p, low, make_float2(sum.x, sum.z), make_float2(up.x, up.z), item == thread ? old[0] : low.load_old(p));
    store<T>(p, high, make_float2(sum.y, sum.w), make_float2(up.y, up.w), item == thread ? old[1] : high.load_old(p));
  }
}

// Every second tile. The two warpgroups take turns at products, and at sums.
template <class T, class Shape>
__device__ __forceinline__ void multiply(const WarpgroupParams& p, const Block& at, int group) {
  constexpr int both = groups * warpgroup_threads, products = 1, sums = 3;  // numbered barriers, of each warpgroup
  const bool rings = threadIdx.x % warp_size == 0;
  Walk w{at.tile + group * p.clusters};
  for (int turn = group; w.tile < at.tiles; turn += groups, w.tile += p.clusters) {
    const bool is_last = w.tile + p.clusters >= at.tiles;
    w.lap = turn * at.chunks / p.stages, w.stage = turn * at.chunks % p.stages;
    const int piece = w.tile * Shape::pieces;
    float c[Shape::pieces][Shape::tokens / 2] = {};
    if (turn > 0) numbered_wait(products + group, both);
    int before = 0;
    for (int chunk = 0; chunk < at.chunks; ++chunk, w.go_on(p, at)) {
      barrier_wait(at.full(w.stage), w.lap);
      const std::uint64_t a = swizzled_matrix(at.ring + w.stage * Shape::stage_bytes), b = swizzled_matrix(Copier<Shape>::x_place(at, w));
#pragma unroll
      for (int n = 0; n < Shape::pieces; ++n) hold(c[n]);
      fence_products();
#pragma unroll
      for (int k = 0; k < chunk_cols / 16; ++k)
#pragma unroll
        for (int n = 0; n < Shape::pieces; ++n) Product<Shape::tokens, T>::add(c[n], a + n * (piece_bytes >> 4) + 2 * k, b + 2 * k, 1);
      commit_products();
      wait_products<1>();
      if (chunk > 0 && rings) barrier_arrive(at.free(before));
      before = w.stage;
    }
    if (!is_last) numbered_arrive(products + 1 - group, both);
    wait_products<0>();
#pragma unroll
    for (int n = 0; n < Shape::pieces; ++n) hold(c[n]);
    if (rings) barrier_arrive(at.free(before));
    if (turn > 0) numbered_wait(sums + group, both);
#pragma unroll
    for (int n = 0; n < Shape::pieces; ++n) add_up<T, Shape>(p, at, c[n], piece + n, turn * Shape::pieces + n);
    if (!is_last) numbered_arrive(sums + 1 - group, both);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <class T, int tokens, int pieces>
__global__ void __launch_bounds__(threads, 1) kernel(const __grid_constant__ WarpgroupParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shape = Tile<tokens, pieces>;
  extern __shared__ std::byte shared[];
  __shared__ __align__(8) std::uint64_t barriers[2 * most_stages + 2];
  Block at;
  at.part = blockIdx.x % p.splits, at.tile = blockIdx.x / p.splits, at.tiles = tiles_of(p.rows, p.end, pieces);
  at.chunks = (chunks_of(p.cols) - 1 - at.part) / p.splits + 1;
  at.ring = (shared_address(shared) + 1023) & ~1023u;
  at.x = at.ring + p.stages * Shape::stage_bytes;
  at.sent = at.x + (Shape::keeps_x ? chunks_of_block(p.cols, p.splits) * Shape::x_bytes : 0);
  at.barriers = shared_address(barriers);

  start_dependents();
  const Copier<Shape> copier{p, at};
  Walk filled{};
  const bool copies = threadIdx.x == groups * warpgroup_threads;
  if (copies) {
    prefetch(p.weights);
    prefetch(p.x);
    for (int stage = 0; stage < p.stages; ++stage) {
      barrier_init(at.full(stage), 1);
      barrier_init(at.free(stage), warpgroup_threads / warp_size);
    }
    for (int place = 0; place < 2; ++place) barrier_init(at.landed(place), 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    publish_to_products();
    filled = copier.fill();
  }
  meet_cluster();
  wait_for_prerequisites();  // x may be what the launch before wrote, and y what it read
  if (copies) copier.go_on(filled);
  else if (threadIdx.x < groups * warpgroup_threads) multiply<T, Shape>(p, at, threadIdx.x / warpgroup_threads);
#endif
}

}  // namespace warpgroup_gemm

}  // namespace lmkit::kernels::cuda
