// SPDX-License-Identifier: Apache-2.0
//
// y = x Wᵀ for up to 64 tokens on sm_90a. Cost: the bytes of W, once; x comes from L2 once a tile and block.
//
// Rows of W are the A operand of a warpgroup's products, 64 in a piece; tokens are the B operand. Both lie in shared memory. A tile has as
// many eights of rows as give every cluster the same number, in up to two pieces for each of two warpgroups. A cluster is one block or
// two, which share a tile's columns: chunk c, 64 columns, is block c mod splits'. Four more warps copy W and x by tensor maps, a chunk each
// in turn, through a ring of stages that runs on from tile to tile.
//
// Budget of a multiprocessor at the read limit (20 bytes a clock), for 224 rows of a chunk and 64 tokens, 28 KB of W in 1430 clocks: products
// 512 (a piece's four take 32 each); shared memory takes in 36 KB and gives out 64 KB, 800; L2 gives 36 KB. On an H200 a warpgroup is
// 230 ns at a chunk of 64 rows, which a multiprocessor's share of the read bandwidth brings in as many.
//
// A unit of sums is of a piece and eight tokens. Of two blocks one has the even units, the other the odd ones: each thread sends the other's
// from its registers to the thread that has the same there, which adds its own and stores them. The other sends again when those
// have been read.
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
  std::int32_t splits, clusters;  // blocks of a cluster, 1 or 2; clusters of the grid
  std::int32_t stages, early;     // of the ring, and of those how many are filled before the end of the launch before
  LinearEnd end;
  bool is_f32;  // y
};

namespace warpgroup_gemm {

inline constexpr int groups = 2;  // warpgroups that multiply
inline constexpr int group_warps = warpgroup_threads / warp_size;
inline constexpr int copiers = 4;  // warps
inline constexpr int threads = groups * warpgroup_threads + copiers * warp_size;
inline constexpr int chunk_cols = 64, row_bytes = chunk_cols * 2, eight_bytes = 8 * row_bytes;  // of a chunk
inline constexpr int piece_eights = 8, piece_bytes = piece_eights * eight_bytes;
inline constexpr int most_pieces = 2, most_eights = groups * most_pieces * piece_eights;  // of a warpgroup, of a tile
inline constexpr int most_stages = 24;
inline constexpr int unit_bytes = warpgroup_threads * 16;

constexpr int chunks_of(int cols) { return (cols + chunk_cols - 1) / chunk_cols; }
__host__ __device__ constexpr int pieces_of(int eights) { return (eights + piece_eights - 1) / piece_eights; }
// Warpgroups that multiply, `pieces` each.
__host__ __device__ constexpr int groups_of(int eights, int pieces) { return pieces_of(eights) > pieces ? groups : 1; }
constexpr int stage_bytes(int eights, int tokens) { return eights * eight_bytes + tokens * row_bytes; }

// Half of a group's units.
__host__ __device__ constexpr int sent_bytes(int tokens, int pieces) { return (pieces * (tokens / 8) + 1) / 2 * unit_bytes; }

// Shared memory: ring (W | x of each stage) | what the other block sends, of each group | what aligns the first to 1024 bytes. A piece that is not
// whole reads on behind its stage.
constexpr int shared_bytes(int eights, int tokens, int splits, int stages) {
  const int pieces = (pieces_of(eights) + groups - 1) / groups;
  const int sent = splits == 1 ? 0 : groups_of(eights, pieces) * sent_bytes(tokens, pieces);
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
  int stage_bytes;
  std::uint32_t ring, sent, barriers;
  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t free(int stage) const { return barriers + 16 * stage + 8; }
  __device__ std::uint32_t landed() const { return barriers + 16 * most_stages; }       // what was sent
  __device__ std::uint32_t drained() const { return barriers + 16 * most_stages + 8; }  // the other block has read what was sent to it
};

// Where a block is among the chunks it multiplies, one after another through all of its tiles.
struct Walk {
  int tile, chunk = 0, stage = 0, lap = 0;
  __device__ __forceinline__ void go_on(const WarpgroupParams& p, const Block& at, int steps = 1) {
    for (chunk += steps; chunk >= at.chunks; chunk -= at.chunks) tile += p.clusters;
    for (stage += steps; stage >= p.stages; stage -= p.stages) ++lap;
  }
};

// --- copies: one thread of each warp, a chunk of four ---------------------------------------------------------------------

template <int tokens>
struct Copier {
  const WarpgroupParams& p;
  const Block& at;
  int number;  // in [0, copiers)

  __device__ __forceinline__ int col(const Walk& w) const { return (at.part + w.chunk * p.splits) * chunk_cols; }
  __device__ __forceinline__ std::uint32_t place(const Walk& w) const { return at.ring + w.stage * at.stage_bytes; }

  __device__ __forceinline__ void bring_weights(const Walk& w) const {
    if (w.lap > 0) barrier_wait(at.free(w.stage), w.lap - 1);
    arrive_expecting(at.full(w.stage), at.stage_bytes);
    copy_weights(place(w), p.weights, w.tile * (p.end == LinearEnd::gate ? p.eights / 2 : p.eights), col(w), at.full(w.stage));
  }
  __device__ __forceinline__ void bring_x(const Walk& w) const { copy_x(place(w) + p.eights * eight_bytes, p.x, col(w), at.full(w.stage)); }

  __device__ __forceinline__ Walk begin() const {
    Walk w{at.tile};
    w.go_on(p, at, number);
    for (int n = number; n < p.early && w.tile < at.tiles; n += copiers, w.go_on(p, at, copiers)) bring_weights(w);
    return w;
  }
  __device__ __forceinline__ void go_on(Walk w) const {
    Walk x{at.tile};
    x.go_on(p, at, number);
    for (int n = number; n < p.early && x.tile < at.tiles; n += copiers, x.go_on(p, at, copiers)) bring_x(x);
    for (; w.tile < at.tiles; w.go_on(p, at, copiers)) bring_weights(w), bring_x(w);
  }
};

// --- sums: a warpgroup ------------------------------------------------------------------------------------------------

// A warp's 16 rows of a piece: two eights of rows of y, or, with a gate, one. Sums of eight tokens are a C fragment.
template <class T>
struct Rows {
  static constexpr bool is_bf16 = std::is_same_v<T, __nv_bfloat16>;
  const WarpgroupParams& p;
  int lane, first, outputs;  // row and rows of y
  bool exists[2];
  float bias[2] = {};        // of rows g and g + 8

  __device__ __forceinline__ Rows(const WarpgroupParams& p, int tile, int eight_of_tile, int lane) : p(p), lane(lane) {
    const bool is_gate = p.end == LinearEnd::gate;
    outputs = is_gate ? p.rows / 2 : p.rows;
    first = (tile * p.eights + eight_of_tile) * (is_gate ? 4 : 8);
    exists[0] = eight_of_tile < p.eights && first < outputs;
    exists[1] = eight_of_tile + 1 < p.eights && first + 8 < outputs;
    if (!p.bias) return;
    if (exists[0]) bias[0] = load2(p.bias[first + lane / 4], is_bf16).x;
    if (is_gate ? exists[0] : exists[1]) bias[1] = load2(p.bias[first + (is_gate ? outputs : 8) + lane / 4], is_bf16).x;
  }

  // Rows 2i, 2i+1 of token lane / 4, of each eight.
  __device__ __forceinline__ uint2 load_old(int tokens) const {
    const int token = tokens + lane / 4;
    const auto* y = static_cast<const std::uint16_t*>(p.y) + std::int64_t{token} * outputs + first + lane % 4 * 2;
    uint2 old = make_uint2(0, 0);
    if (token < p.tokens && exists[0]) old.x = *reinterpret_cast<const std::uint32_t*>(y);
    if (token < p.tokens && exists[1]) old.y = *reinterpret_cast<const std::uint32_t*>(y + 8);
    return old;
  }

  __device__ __forceinline__ void store_f32(float4 sum, int tokens) const {
    const int token = tokens + lane % 4 * 2;
    float* const y = static_cast<float*>(p.y) + std::int64_t{token} * outputs + first + lane / 4;
    if (token < p.tokens && exists[0]) y[0] = sum.x + bias[0];
    if (token < p.tokens && exists[1]) y[8] = sum.z + bias[1];
    if (token + 1 < p.tokens && exists[0]) y[outputs] = sum.y + bias[0];
    if (token + 1 < p.tokens && exists[1]) y[outputs + 8] = sum.w + bias[1];
  }
  __device__ __forceinline__ void store_gated(float4 sum, int tokens) const {
    const auto gated = [](float gate, float up) { return gate / (1.f + __expf(-gate)) * up; };
    const int token = tokens + lane / 4;
    const std::uint32_t pair = transpose8x8(pack2<T>(gated(sum.x + bias[0], sum.z + bias[1]), gated(sum.y + bias[0], sum.w + bias[1])));
    if (token < p.tokens && exists[0])
      *reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(p.y) + std::int64_t{token} * outputs + first + lane % 4 * 2) = pair;
  }
  // Each lane stores four rows of a token, so that a token's 16 are 32 bytes.
  __device__ __forceinline__ void store(float4 sum, uint2 old, int tokens) const {
    if (p.end == LinearEnd::add) {
      const float2 a = load2(transpose8x8(old.x), is_bf16), b = load2(transpose8x8(old.y), is_bf16);
      sum.x += a.x, sum.y += a.y, sum.z += b.x, sum.w += b.y;
    }
    const int i = lane % 4, token = tokens + lane / 4;
    std::uint32_t low = transpose8x8(pack2<T>(sum.x + bias[0], sum.y + bias[0])), high = transpose8x8(pack2<T>(sum.z + bias[1], sum.w + bias[1]));
    const std::uint32_t far = __shfl_xor_sync(full_warp, i < 2 ? high : low, 2);
    low = i < 2 ? low : far, high = i < 2 ? far : high;
    const std::uint32_t near = __shfl_xor_sync(full_warp, i % 2 ? low : high, 1);
    low = i % 2 ? near : low, high = i % 2 ? high : near;
    if (token < p.tokens && (i < 2 ? exists[0] : exists[1]))
      *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(p.y) + std::int64_t{token} * outputs + first + 4 * i) = make_uint2(low, high);
  }
};

// A warpgroup's sums of a tile, (pieces, tokens / 8) units.
template <class T, int tokens, int pieces>
struct Sums {
  static constexpr int wide = tokens / 8;
  static constexpr int chains = most_pieces / pieces;  // of products that add to the same sum
  const WarpgroupParams& p;
  const Block& at;
  int group, tile, thread, lane;
  float c[pieces][chains][tokens / 2];
  uint2 old[pieces][wide];  // what y holds before, if it is added to

  __device__ __forceinline__ Sums(const WarpgroupParams& p, const Block& at, int group, int tile)
      : p(p), at(at), group(group), tile(tile), thread(threadIdx.x % warpgroup_threads), lane(thread % warp_size) {
#pragma unroll
    for (int n = 0; n < pieces; ++n)
#pragma unroll
      for (int chain = 0; chain < chains; ++chain)
#pragma unroll
        for (int v = 0; v < tokens / 2; ++v) c[n][chain][v] = 0.f;
    if (p.end != LinearEnd::add) return;
#pragma unroll
    for (int n = 0; n < pieces; ++n)
#pragma unroll
      for (int e = 0; e < wide; ++e)
        if (is_own(n * wide + e)) old[n][e] = rows_of(n).load_old(8 * e);
  }

  __device__ __forceinline__ int piece(int n) const { return group * pieces + n; }
  __device__ __forceinline__ bool exists(int n) const { return n + 1 < pieces || piece(n) < pieces_of(p.eights); }
  __device__ __forceinline__ Rows<T> rows_of(int n) const { return Rows<T>(p, tile, piece(n) * piece_eights + thread / warp_size * 2, lane); }
  __device__ __forceinline__ float4 unit(int n, int e) const {
    const float* const sum = &c[n][0][4 * e];
    return make_float4(sum[0], sum[1], sum[2], sum[3]);
  }
  __device__ __forceinline__ bool is_own(int u) const { return p.splits == 1 || u % 2 == at.part; }
  // Where a unit's other half is sent to, of this thread.
  __device__ __forceinline__ std::uint32_t place() const { return at.sent + group * sent_bytes(tokens, pieces) + thread * 16; }

  // Adds up the chains, after all products.
  __device__ __forceinline__ void join() {
#pragma unroll
    for (int n = 0; n < pieces; ++n)
#pragma unroll
      for (int chain = 0; chain < chains; ++chain) {
        hold(c[n][chain]);
#pragma unroll
        for (int v = 0; chain > 0 && v < tokens / 2; ++v) c[n][0][v] += c[n][chain][v];
      }
  }

  __device__ __forceinline__ void send_others(int turn) const {
    if (turn == 0) cluster_wait();
    else wait_phase(at.drained(), (turn - 1) % 2);
    const auto units_of = [&](int pieces_of_group) { return (pieces_of_group * wide + 1 - at.part) / 2; };
    const int first = min(pieces, pieces_of(p.eights));
    if (threadIdx.x == 0) arrive_expecting(at.landed(), (units_of(first) + units_of(pieces_of(p.eights) - first)) * unit_bytes);
    const std::uint32_t there = address_in(place(), 1 - at.part), bell = address_in(at.landed(), 1 - at.part);
#pragma unroll
    for (int n = 0; n < pieces; ++n) {
      if (!exists(n)) return;
#pragma unroll
      for (int e = 0; e < wide; ++e)
        if (const int u = n * wide + e; u % 2 != at.part) send(there + u / 2 * unit_bytes, unit(n, e), bell);
    }
  }

  template <class Store>
  __device__ __forceinline__ void store_own(Store&& store) const {
#pragma unroll
    for (int n = 0; n < pieces; ++n) {
      if (!exists(n)) return;
      const Rows<T> rows = rows_of(n);
#pragma unroll
      for (int e = 0; e < wide; ++e) {
        const int u = n * wide + e;
        if (!is_own(u)) continue;
        float4 sum = unit(n, e);
        if (p.splits == 2) {
          const float4 other = load_floats(place() + u / 2 * unit_bytes);
          sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
        }
        store(rows, sum, n, e);
      }
    }
  }

  __device__ __forceinline__ void finish(int turn) const {
    if (p.splits == 2) {
      send_others(turn);
      wait_phase(at.landed(), turn % 2);
    }
    if (p.is_f32) store_own([](const Rows<T>& rows, const float4& sum, int, int e) { rows.store_f32(sum, 8 * e); });
    else if (p.end == LinearEnd::gate) store_own([](const Rows<T>& rows, const float4& sum, int, int e) { rows.store_gated(sum, 8 * e); });
    else store_own([&](const Rows<T>& rows, const float4& sum, int n, int e) { rows.store(sum, old[n][e], 8 * e); });
    if (p.splits == 1 || tile + p.clusters >= at.tiles) return;
    __syncwarp();
    if (lane == 0) arrive_at(address_in(at.drained(), 1 - at.part));
  }
};

template <class T, int tokens, int pieces>
__device__ __forceinline__ void multiply(const WarpgroupParams& p, const Block& at, int group) {
  const bool rings = threadIdx.x % warp_size == 0;
  Walk w{at.tile};
  for (int turn = 0; w.tile < at.tiles; ++turn) {
    Sums<T, tokens, pieces> sums(p, at, group, w.tile);
    int before = 0;
    for (int chunk = 0; chunk < at.chunks; ++chunk, w.go_on(p, at)) {
      barrier_wait(at.full(w.stage), w.lap);
      const std::uint32_t stage = at.ring + w.stage * at.stage_bytes;
      const std::uint64_t b = swizzled_matrix(stage + p.eights * eight_bytes);
      fence_products();
#pragma unroll
      for (int k = 0; k < chunk_cols / 16; ++k)
#pragma unroll
        for (int n = 0; n < pieces; ++n) {
          const int piece = sums.exists(n) ? sums.piece(n) : 0;  // products start on no condition
          Product<tokens, T>::add(sums.c[n][k % sums.chains], swizzled_matrix(stage + piece * piece_bytes) + 2 * k, b + 2 * k, 1);
        }
      commit_products();
      wait_products<1>();
      if (chunk > 0 && rings) barrier_arrive(at.free(before));
      before = w.stage;
    }
    wait_products<0>();
    if (rings) barrier_arrive(at.free(before));
    sums.join();
    sums.finish(turn);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// pieces: of a warpgroup
template <class T, int tokens, int pieces>
__global__ void __launch_bounds__(threads, 1) kernel(const __grid_constant__ WarpgroupParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::byte shared[];
  __shared__ __align__(8) std::uint64_t barriers[2 * most_stages + 2];
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  const int warps = groups_of(p.eights, pieces) * group_warps;  // that multiply
  Block at;
  at.part = blockIdx.x % p.splits, at.tile = blockIdx.x / p.splits, at.tiles = (p.rows + p.eights * 8 - 1) / (p.eights * 8);
  at.chunks = (chunks_of(p.cols) - 1 - at.part) / p.splits + 1;
  at.stage_bytes = p.eights * eight_bytes + tokens * row_bytes;
  at.ring = (shared_address(shared) + 1023) & ~1023u;
  at.sent = at.ring + p.stages * at.stage_bytes;
  at.barriers = shared_address(barriers);
  asm volatile("" : "+r"(at.ring), "+r"(at.sent), "+r"(at.barriers));  // computed once

  start_dependents();
  if (warp == groups * group_warps) {
    if (lane < p.stages) {
      barrier_init(at.full(lane), 1);
      barrier_init(at.free(lane), warps);
    } else if (lane == most_stages) {
      prefetch(p.weights);
      prefetch(p.x);
      barrier_init(at.landed(), 1);
      barrier_init(at.drained(), warps);
    }
    publish_to_products();
  }
  if (p.splits == 2) cluster_arrive();
  __syncthreads();
  if (warp >= groups * group_warps) {
    if (lane > 0) return;
    const Copier<tokens> copier{p, at, warp - groups * group_warps};
    const Walk begun = copier.begin();
    wait_for_prerequisites();  // x may be what the launch before wrote
    copier.go_on(begun);
  } else if (warp < warps) {
    wait_for_prerequisites();  // and y what it wrote or read
    multiply<T, tokens, pieces>(p, at, warp / group_warps);
  }
#endif
}

}  // namespace warpgroup_gemm

}  // namespace lmkit::kernels::cuda
