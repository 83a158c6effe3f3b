// SPDX-License-Identifier: Apache-2.0
//
// y = x Wᵀ for up to 64 tokens on sm_90a. Cost: the bytes of W, once; x comes from L2 once a tile and block.
//
// Rows of W are the A operand of a warpgroup's products, 64 in a piece; tokens are the B operand. Both lie in shared memory. A tile has as
// many eights of rows as give every cluster the same number, in up to three pieces for each of two warpgroups. A cluster shares a tile's
// columns: chunk c, 64 columns, is block c mod splits'. One thread of a block copies W and x by tensor maps, through a ring of stages that
// runs on from tile to tile.
//
// Budget of a multiprocessor at the read limit (20 bytes a clock), for 224 rows of a chunk and 64 tokens, 28 KB of W in 1430 clocks: products
// 512 (a piece's four take 32 each); shared memory takes in 36 KB and gives out 64 KB, 800; L2 gives 36 KB.
//
// A unit of sums, of a piece and eight tokens, belongs to a block of the cluster. The others send theirs to it, each thread what it has in registers to
// the thread that has the same there, which adds them up in the order of the blocks and stores them. What was sent may be overwritten
// when all blocks have read.
//
// W does not depend on the launch before, so some of the ring is filled before its end; not all, since copies are done in their order, and x is
// waited for.
//
// A gate takes eights of the two halves of W in turn, so that both sums of a value are one thread's. Built for anything else than sm_90a
// the kernel is empty; what says so is that it has no shared memory of its own.
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
  CUtensorMap weights;        // (eights, halves, 8, cols) of rows, in boxes of a tile's eights by chunk_cols; halves: 2 with a gate, else 1
  CUtensorMap x;              // (tokens, cols), in boxes of all tokens by chunk_cols
  const std::uint16_t* bias;  // (rows), or null
  void* y;                    // (tokens, rows; with a gate rows / 2)
  std::int32_t rows, cols, tokens;
  std::int32_t eights;            // of W's rows in a tile
  std::int32_t splits, clusters;  // blocks of a cluster, a power of two; clusters of the grid
  std::int32_t stages, early;     // of the ring, and of those how many are filled before the end of the launch before
  LinearEnd end;
  bool is_f32;  // y
};

namespace warpgroup_gemm {

inline constexpr int groups = 2;  // warpgroups that multiply
inline constexpr int group_warps = warpgroup_threads / warp_size;
inline constexpr int threads = groups * warpgroup_threads + warp_size;
inline constexpr int chunk_cols = 64, row_bytes = chunk_cols * 2, eight_bytes = 8 * row_bytes;  // of a chunk
inline constexpr int piece_eights = 8, piece_bytes = piece_eights * eight_bytes;
inline constexpr int most_pieces = 3, most_eights = groups * most_pieces * piece_eights;  // of a warpgroup, of a tile
inline constexpr int most_stages = 24;
inline constexpr int unit_bytes = warpgroup_threads * 16;

constexpr int chunks_of(int cols) { return (cols + chunk_cols - 1) / chunk_cols; }
__host__ __device__ constexpr int pieces_of(int eights) { return (eights + piece_eights - 1) / piece_eights; }
// Warpgroups that multiply, `pieces` each.
__host__ __device__ constexpr int groups_of(int eights, int pieces) { return pieces_of(eights) > pieces ? groups : 1; }
constexpr int stage_bytes(int eights, int tokens) { return eights * eight_bytes + tokens * row_bytes; }

// Shared memory: ring (W | x of each stage) | what other blocks send, of each unit | what aligns the first to 1024 bytes. A piece that is not
// whole reads on behind its stage.
constexpr int shared_bytes(int eights, int tokens, int splits, int stages) {
  const int units = pieces_of(eights) * (tokens / 8);
  const int sent = splits == 1 ? 0 : (units + splits - 1) / splits * splits * unit_bytes;
  return stages * stage_bytes(eights, tokens) + std::max(sent, piece_bytes) + 1024;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Boxes of a matrix; what lies outside of it is 0. The barrier counts the bytes of the whole box.
__device__ __forceinline__ void copy_weights(std::uint32_t target, const CUtensorMap& weights, int eight, int col, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, 0, 0, %3}], [%4];" ::"r"(target), "l"(&weights),
               "r"(col), "r"(eight), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void copy_x(std::uint32_t target, const CUtensorMap& x, int col, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, 0}], [%3];" ::"r"(target), "l"(&x), "r"(col),
               "r"(barrier)
               : "memory");
}
__device__ __forceinline__ float4 load_floats(std::uint32_t address) {
  float4 x;
  asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ void prefetch(const CUtensorMap& matrix) { asm volatile("prefetch.tensormap [%0];" ::"l"(&matrix) : "memory"); }

// A block's part of the work, and addresses in its shared memory.
struct Block {
  int part, chunks, tile, tiles;  // of the cluster; of a tile; the first and how many there are
  std::uint32_t ring, sent;
  std::uint32_t barriers;         // full and free of each stage, landed, drained
  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t free(int stage) const { return barriers + 16 * stage + 8; }
  __device__ std::uint32_t landed() const { return barriers + 16 * most_stages; }       // what was sent
  __device__ std::uint32_t drained() const { return barriers + 16 * most_stages + 8; }  // every block has read what was sent to it
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

template <int tokens>
struct Copier {
  const WarpgroupParams& p;
  const Block& at;

  __device__ __forceinline__ int col(const Walk& w) const { return (at.part + w.chunk * p.splits) * chunk_cols; }
  __device__ __forceinline__ std::uint32_t place(const Walk& w) const { return at.ring + w.stage * (p.eights * eight_bytes + tokens * row_bytes); }

  __device__ __forceinline__ void bring_weights(const Walk& w) const {
    if (w.lap > 0) barrier_wait(at.free(w.stage), w.lap - 1);
    arrive_expecting(at.full(w.stage), p.eights * eight_bytes + tokens * row_bytes);
    copy_weights(place(w), p.weights, w.tile * (p.end == LinearEnd::gate ? p.eights / 2 : p.eights), col(w), at.full(w.stage));
  }
  __device__ __forceinline__ void bring_x(const Walk& w) const { copy_x(place(w) + p.eights * eight_bytes, p.x, col(w), at.full(w.stage)); }

  __device__ __forceinline__ Walk begin() const {
    Walk w{at.tile};
    for (int n = 0; n < p.early && w.tile < at.tiles; ++n, w.go_on(p, at)) bring_weights(w);
    return w;
  }
  __device__ __forceinline__ void go_on(Walk w) const {
    Walk x{at.tile};
    for (int n = 0; n < p.early && x.tile < at.tiles; ++n, x.go_on(p, at)) bring_x(x);
    for (; w.tile < at.tiles; w.go_on(p, at)) bring_weights(w), bring_x(w);
  }
};

// --- sums: a warpgroup ------------------------------------------------------------------------------------------------

// A warp's 16 rows of W by eight tokens: two eights of rows of y, or, with a gate, one.
template <class T>
struct Rows {
  const WarpgroupParams& p;
  int eight, outputs;  // first one of y, rows of y
  bool exists[2];
  float bias[2] = {};  // of rows g and g + 8 of the product

  __device__ __forceinline__ Rows(const WarpgroupParams& p, int tile, int eight_of_tile, int lane) : p(p) {
    const bool is_gate = p.end == LinearEnd::gate;
    outputs = is_gate ? p.rows / 2 : p.rows;
    eight = is_gate ? (tile * p.eights + eight_of_tile) / 2 : tile * p.eights + eight_of_tile;
    for (int h = 0; h < 2; ++h) {
      exists[h] = eight_of_tile + h < p.eights && (is_gate ? h == 0 && eight * 8 < outputs : (eight + h) * 8 < outputs);
      const int row = is_gate ? eight * 8 + h * outputs : (eight + h) * 8;
      if (p.bias && row < p.rows) bias[h] = load2(p.bias[row + lane / 4], std::is_same_v<T, __nv_bfloat16>).x;
    }
  }

  // Rows 2i, 2i+1 of the eight, for token lane / 4 of eight tokens.
  __device__ __forceinline__ std::uint32_t* pair(int h, int tokens, int lane) const {
    return reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(p.y) + std::int64_t{tokens + lane / 4} * outputs + (eight + h) * 8 + lane % 4 * 2);
  }
  // What y holds before, if it is added to.
  __device__ __forceinline__ uint2 load_old(int tokens, int lane) const {
    uint2 old = make_uint2(0, 0);
    if (p.end != LinearEnd::add || tokens + lane / 4 >= p.tokens) return old;
    if (exists[0]) old.x = *pair(0, tokens, lane);
    if (exists[1]) old.y = *pair(1, tokens, lane);
    return old;
  }

  // A unit's sums, a C fragment.
  __device__ __forceinline__ void store(float4 sum, uint2 old, int tokens, int lane) const {
    constexpr bool is_bf16 = std::is_same_v<T, __nv_bfloat16>;
    sum.x += bias[0], sum.y += bias[0], sum.z += bias[1], sum.w += bias[1];
    if (p.end == LinearEnd::gate) sum.x = sum.x / (1.f + __expf(-sum.x)) * sum.z, sum.y = sum.y / (1.f + __expf(-sum.y)) * sum.w;
    if (p.is_f32) {
      for (int h = 0; h < 2; ++h)
        for (int j = 0; j < 2; ++j)
          if (const int token = tokens + lane % 4 * 2 + j; exists[h] && token < p.tokens)
            static_cast<float*>(p.y)[std::int64_t{token} * outputs + (eight + h) * 8 + lane / 4] = h ? (j ? sum.w : sum.z) : (j ? sum.y : sum.x);
      return;
    }
    const float2 low = load2(transpose8x8(old.x), is_bf16), high = load2(transpose8x8(old.y), is_bf16);
    const std::uint32_t first = transpose8x8(pack2<T>(sum.x + low.x, sum.y + low.y)), second = transpose8x8(pack2<T>(sum.z + high.x, sum.w + high.y));
    if (tokens + lane / 4 >= p.tokens) return;
    if (exists[0]) *pair(0, tokens, lane) = first;
    if (exists[1]) *pair(1, tokens, lane) = second;
  }
};

// The sums of a tile: sends units to where they belong, adds up and stores the block's own.
template <class T, int tokens, int pieces>
__device__ __forceinline__ void finish(const WarpgroupParams& p, const Block& at, const float (&c)[pieces][tokens / 2], int group, int tile, int turn) {
  constexpr int wide = tokens / 8;
  const int thread = threadIdx.x % warpgroup_threads, lane = thread % warp_size, warp = thread / warp_size;
  const int all_pieces = pieces_of(p.eights), last = p.splits - 1;
  const auto place = [&](int unit, int source) { return at.sent + ((unit / p.splits * p.splits + source) * warpgroup_threads + thread) * 16; };
  if (p.splits > 1) {
    if (turn > 0) wait_phase(at.drained(), (turn - 1) % 2);
    if (threadIdx.x == 0) arrive_expecting(at.landed(), (all_pieces * wide + last - at.part) / p.splits * last * unit_bytes);
#pragma unroll
    for (int n = 0; n < pieces; ++n)
#pragma unroll
      for (int e = 0; e < wide; ++e) {
        const int piece = group * pieces + n, unit = piece * wide + e, owner = unit & last;
        if (piece < all_pieces && owner != at.part)
          send(place(unit, at.part), make_float4(c[n][4 * e], c[n][4 * e + 1], c[n][4 * e + 2], c[n][4 * e + 3]), at.landed(), owner);
      }
  }
#pragma unroll
  for (int n = 0; n < pieces; ++n) {
    const int piece = group * pieces + n;
    if (piece >= all_pieces) break;
    const Rows<T> rows(p, tile, piece * piece_eights + 2 * warp, lane);
    uint2 old[wide];
#pragma unroll
    for (int e = 0; e < wide; ++e)
      if (((piece * wide + e) & last) == at.part) old[e] = rows.load_old(8 * e, lane);
    if (n == 0 && p.splits > 1) wait_phase(at.landed(), turn % 2);
#pragma unroll
    for (int e = 0; e < wide; ++e) {
      const int unit = piece * wide + e;
      if ((unit & last) != at.part) continue;
      const float4 own = make_float4(c[n][4 * e], c[n][4 * e + 1], c[n][4 * e + 2], c[n][4 * e + 3]);
      float4 sum{};
      for (int s = 0; s < p.splits; ++s) {
        const float4 x = s == at.part ? own : load_floats(place(unit, s));
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
      }
      rows.store(sum, old[e], 8 * e, lane);
    }
  }
  if (p.splits == 1 || tile + p.clusters >= at.tiles) return;
  __syncwarp();
  if (lane < p.splits) arrive_at(at.drained(), lane);
}

template <class T, int tokens, int pieces>
__device__ __forceinline__ void multiply(const WarpgroupParams& p, const Block& at, int group) {
  const bool rings = threadIdx.x % warp_size == 0;
  const Copier<tokens> copier{p, at};
  const int all_pieces = pieces_of(p.eights);
  Walk w{at.tile};
  for (int turn = 0; w.tile < at.tiles; ++turn) {
    const int tile = w.tile;
    float c[pieces][tokens / 2] = {};
    int before = 0;
    for (int chunk = 0; chunk < at.chunks; ++chunk, w.go_on(p, at)) {
      barrier_wait(at.full(w.stage), w.lap);
      const std::uint32_t stage = copier.place(w);
      const std::uint64_t b = swizzled_matrix(stage + p.eights * eight_bytes);
      fence_products();
#pragma unroll
      for (int k = 0; k < chunk_cols / 16; ++k)
#pragma unroll
        for (int n = 0; n < pieces; ++n) {
          const int piece = min(group * pieces + n, all_pieces - 1);  // one that does not exist repeats the last
          Product<tokens, T>::add(c[n], swizzled_matrix(stage + piece * piece_bytes) + 2 * k, b + 2 * k, 1);
        }
      commit_products();
      wait_products<1>();
      if (chunk > 0 && rings) barrier_arrive(at.free(before));
      before = w.stage;
    }
    wait_products<0>();
#pragma unroll
    for (int n = 0; n < pieces; ++n) hold(c[n]);
    if (rings) barrier_arrive(at.free(before));
    finish<T, tokens, pieces>(p, at, c, group, tile, turn);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// pieces: of a warpgroup
template <class T, int tokens, int pieces>
__global__ void __launch_bounds__(threads, 1) kernel(const __grid_constant__ WarpgroupParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::byte shared[];
  __shared__ __align__(8) std::uint64_t barriers[2 * most_stages + 2];
  Block at;
  at.part = blockIdx.x % p.splits, at.tile = blockIdx.x / p.splits, at.tiles = (p.rows + p.eights * 8 - 1) / (p.eights * 8);
  at.chunks = (chunks_of(p.cols) - 1 - at.part) / p.splits + 1;
  at.ring = (shared_address(shared) + 1023) & ~1023u;
  at.sent = at.ring + p.stages * (p.eights * eight_bytes + tokens * row_bytes);
  at.barriers = shared_address(barriers);

  start_dependents();
  const Copier<tokens> copier{p, at};
  Walk begun{};
  const bool copies = threadIdx.x == groups * warpgroup_threads;
  const int warps = groups_of(p.eights, pieces) * group_warps;
  if (copies) {
    prefetch(p.weights);
    prefetch(p.x);
    for (int stage = 0; stage < p.stages; ++stage) {
      barrier_init(at.full(stage), 1);
      barrier_init(at.free(stage), warps);
    }
    barrier_init(at.landed(), 1);
    barrier_init(at.drained(), p.splits * warps);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    publish_to_products();
    begun = copier.begin();
  }
  __syncthreads();
  if (p.splits > 1) meet_cluster();
  wait_for_prerequisites();  // x may be what the launch before wrote, and y what it read
  if (copies) copier.go_on(begun);
  else if (threadIdx.x < warps * warp_size) multiply<T, tokens, pieces>(p, at, threadIdx.x / warpgroup_threads);
#endif
}

}  // namespace warpgroup_gemm

}  // namespace lmkit::kernels::cuda
