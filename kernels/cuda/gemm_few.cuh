// SPDX-License-Identifier: Apache-2.0
//
// y = x Wᵀ for up to 32 tokens. Cost: the bytes of W, once; x comes from L2 once a block, and stays in shared memory.
//
// A tile of 16 rows of W is the A operand of m16n8k16, eight tokens its B. Eight warps of a block, and the blocks of a
// cluster, share a tile's columns: chunk c, 64 columns, is worker c mod workers'. What a lane multiplies it has copied itself,
// W through a ring of stages that runs on from tile to tile, x once for all tiles. The order of columns within a product is
// free, so that a lane's share of 32 columns is one load of 16 bytes: columns 8i .. 8i+7 stand for the operand's 2i, 2i+1,
// 2i+8, 2i+9, twice.
//
// Four more warps add up the workers' parts of a tile, always in the same order, and write them, while the eight are at the
// next tile: two sets of parts are under way, and barriers in shared memory say which is full and which is free. In a cluster
// each block adds up its own workers' parts, sends each sum to the block that owns the value, and adds up what it is sent.
//
// W does not depend on the launch before, so the ring is filled before its end.
//
// A gate takes 8 rows of each half of W as a tile.
#pragma once

#include "cluster.cuh"

#include <lmkit/kernels/linear.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lmkit::kernels::cuda {

struct FewParams {
  const std::uint16_t* weights;  // (rows, cols)
  const std::uint16_t* bias;     // (rows), or null
  const std::uint16_t* x;        // (tokens, cols)
  void* y;                       // (tokens, rows; with a gate rows / 2)
  std::int32_t rows, cols, tokens;
  std::int32_t splits, clusters;  // blocks of a cluster, clusters of the grid
  LinearEnd end;
  bool is_f32;                    // y
};

namespace few {

inline constexpr int most_tokens = 32;
inline constexpr int workers = 8, adders = 4;  // warps
inline constexpr int threads = (workers + adders) * warp_size;
inline constexpr int tile_rows = 16, chunk_cols = 64;
inline constexpr int stage_bytes = tile_rows * chunk_cols * 2;  // of a warp
constexpr int tile_sums(int token_tiles) { return token_tiles * tile_rows * 8; }

constexpr int chunks_of(int cols) { return (cols + chunk_cols - 1) / chunk_cols; }
// Of the first worker, which has the most.
constexpr int chunks_of_worker(int cols, int splits) { return (chunks_of(cols) + splits * workers - 1) / (splits * workers); }

// Shared memory: rings | x | two sets of each worker's parts | two sets of what the cluster's blocks send
constexpr int ring_bytes(int stages) { return workers * stages * stage_bytes; }
constexpr std::int64_t x_bytes(int cols, int splits, int tokens) { return std::int64_t{chunks_of_worker(cols, splits)} * workers * chunk_cols * 2 * tokens; }
constexpr std::int64_t shared_bytes(int cols, int tokens, int token_tiles, int splits, int stages) {
  return ring_bytes(stages) + x_bytes(cols, splits, tokens) + 2 * (workers + 1) * tile_sums(token_tiles) * 4;
}

// 16 bytes, or zeros.
__device__ __forceinline__ void copy16_async_if(std::uint32_t target, const void* source, bool exists) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(exists ? 16 : 0) : "memory");
}

__device__ __forceinline__ uint4 load16(std::uint32_t address) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(address) : "memory");
  return x;
}

// --- the parts of a block ---

// Addresses in shared memory.
struct Places {
  std::uint32_t ring, x;      // of a warp
  std::uint32_t parts, sent;  // (2, workers, sums) and (2, splits, sums / splits) floats
  std::uint32_t barriers;     // full, free, landed, of each set
  __device__ std::uint32_t full(int set) const { return barriers + 8 * set; }
  __device__ std::uint32_t free(int set) const { return barriers + 16 + 8 * set; }
  __device__ std::uint32_t landed(int set) const { return barriers + 32 + 8 * set; }
};

// Row r of a tile, in W.
__device__ __forceinline__ int row_of(const FewParams& p, int tile, int r) {
  return p.end == LinearEnd::gate ? tile * (tile_rows / 2) + r % 8 + (r < 8 ? 0 : p.rows / 2) : tile * tile_rows + r;
}

// A lane's share of W and x, chunk by chunk and tile by tile.
struct Loader {
  const FewParams& p;
  int lane, worker, all_workers, chunks;  // chunks: of this worker in a tile
  std::uint32_t x;                        // of this lane's first token, in shared memory
  int tile, tiles, chunk = 0;             // next to be copied
  const std::uint16_t *low = nullptr, *high = nullptr;  // rows g and g + 8 of the tile

  __device__ __forceinline__ int col(int chunk) const { return (worker + chunk * all_workers) * chunk_cols + lane % 4 * 8; }

  __device__ __forceinline__ void find_rows() {
    const int row = row_of(p, tile, lane / 4), other = row_of(p, tile, lane / 4 + 8);  // those that do not exist repeat the last, and are not written
    low = p.weights + static_cast<std::int64_t>(min(row, p.rows - 1)) * p.cols;
    high = p.weights + static_cast<std::int64_t>(min(other, p.rows - 1)) * p.cols;
  }

  // The next chunk of W, if there is one.
  __device__ __forceinline__ void copy_weights(std::uint32_t stage) {
    if (tile >= tiles || chunks == 0) return;
    if (chunk == 0) find_rows();
    const int from = col(chunk);
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const bool exists = from + 32 * b < p.cols;
      copy16_async_if(stage + 1024 * b + 16 * lane, low + from + 32 * b, exists);
      copy16_async_if(stage + 1024 * b + 512 + 16 * lane, high + from + 32 * b, exists);
    }
    if (++chunk == chunks) chunk = 0, tile += p.clusters;
  }

  __device__ __forceinline__ std::uint32_t x_place(int chunk, int b, int n) const { return x + ((2 * chunk + b) * p.tokens + 8 * n) * 64; }

  // Chunk `chunk` of x: for each half b and token, the lane's 16 bytes.
  template <int token_tiles>
  __device__ __forceinline__ void copy_x(int chunk) const {
    if (chunk >= chunks) return;
    const int from = col(chunk);
#pragma unroll
    for (int b = 0; b < 2; ++b)
#pragma unroll
      for (int n = 0; n < token_tiles; ++n)
        if (const int token = 8 * n + lane / 4; token < p.tokens)
          copy16_async_if(x_place(chunk, b, n), p.x + static_cast<std::int64_t>(token) * p.cols + from + 32 * b, from + 32 * b < p.cols);
  }
};

// A worker's part of every tile. The ring holds stages - 1 chunks of W.
template <class T, int token_tiles, int stages>
__device__ __forceinline__ void multiply(const FewParams& p, const Places& at, Loader& loader, int tile, int warp, int lane) {
  for (int s = 0; s < stages - 1; ++s) {
    loader.template copy_x<token_tiles>(s);
    commit_copies();
  }
  int fill = stages - 1, use = 0, next_x = stages - 1;
  for (int turn = 0; tile < loader.tiles; tile += p.clusters, ++turn) {
    float c[token_tiles][4] = {};
    for (int chunk = 0; chunk < loader.chunks; ++chunk) {
      wait_copies<stages - 2>();
      const std::uint32_t stage = at.ring + use * stage_bytes + 16 * lane;
      use = use + 1 == stages ? 0 : use + 1;
      uint4 low[2], high[2], x[2][token_tiles] = {};  // all loads first: two warps a scheduler do not hide their latency
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        low[b] = load16(stage + 1024 * b), high[b] = load16(stage + 1024 * b + 512);
#pragma unroll
        for (int n = 0; n < token_tiles; ++n)
          if (8 * n + lane / 4 < p.tokens) x[b][n] = load16(loader.x_place(chunk, b, n));
      }
      loader.copy_weights(at.ring + fill * stage_bytes);
      if (turn == 0) loader.template copy_x<token_tiles>(next_x++);
      commit_copies();
      fill = fill + 1 == stages ? 0 : fill + 1;
#pragma unroll
      for (int b = 0; b < 2; ++b) {
#pragma unroll
        for (int n = 0; n < token_tiles; ++n) mma<T>(c[n], low[b].x, high[b].x, low[b].y, high[b].y, x[b][n].x, x[b][n].y);
#pragma unroll
        for (int n = 0; n < token_tiles; ++n) mma<T>(c[n], low[b].z, high[b].z, low[b].w, high[b].w, x[b][n].z, x[b][n].w);
      }
    }
    const int set = turn % 2;
    wait_phase(at.free(set), turn / 2 % 2 ^ 1);
#pragma unroll
    for (int n = 0; n < token_tiles; ++n)
      asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(at.parts + ((set * workers + warp) * token_tiles + n) * 512 + 16 * lane), "f"(c[n][0]),
                   "f"(c[n][1]), "f"(c[n][2]), "f"(c[n][3])
                   : "memory");
    barrier_arrive(at.full(set));  // each lane for what it wrote
  }
  wait_copies<0>();
}

__device__ __forceinline__ float load_float(std::uint32_t address) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(address) : "memory");
  return x;
}

// Where value v of a tile goes: that of the C fragments, (n, lane, 4). Gate and up of a value are lanes 2 apart.
struct Value {
  int row, token;
  bool exists;
  std::int64_t at;  // in y

  __device__ __forceinline__ Value(const FewParams& p, int tile, int v) {
    const int r = v / 4 % warp_size / 4 + v / 2 % 2 * 8;
    row = row_of(p, tile, r), token = v / 128 * 8 + v / 4 % 4 * 2 + v % 2;
    exists = row < p.rows && token < p.tokens;
    at = p.end == LinearEnd::gate ? static_cast<std::int64_t>(token) * (p.rows / 2) + row : static_cast<std::int64_t>(token) * p.rows + row;
  }
};

template <class T>
__device__ __forceinline__ float load_one(const void* values, std::int64_t at) {
  return load2(static_cast<const std::uint16_t*>(values)[at], std::is_same_v<T, __nv_bfloat16>).x;
}

// What y holds there before, if it is added to; well before it is needed.
template <class T>
__device__ __forceinline__ float load_old(const FewParams& p, const Value& value) {
  return p.end == LinearEnd::add && value.exists ? load_one<T>(p.y, value.at) : 0.f;
}

// All lanes of a warp, with neighbours v.
template <class T>
__device__ __forceinline__ void store(const FewParams& p, const Value& value, float sum, float old) {
  if (p.bias && value.exists) sum += load_one<T>(p.bias, value.row);
  if (p.end == LinearEnd::gate) {
    const float up = __shfl_xor_sync(full_warp, sum, 2);
    sum = sum / (1.f + __expf(-sum)) * up;
    if (value.row >= p.rows / 2) return;
  }
  if (!value.exists) return;
  if (p.is_f32) static_cast<float*>(p.y)[value.at] = sum;
  else static_cast<std::uint16_t*>(p.y)[value.at] = static_cast<std::uint16_t>(pack2<T>(sum + old, 0.f));
}

// Adds up the parts of every tile. thread: of the adders'.
template <class T, int token_tiles>
__device__ __forceinline__ void add_up(const FewParams& p, const Places& at, int tile, int part, int thread) {
  constexpr int sums = tile_sums(token_tiles), all = adders * warp_size;
  const int tiles = (p.rows + tile_rows - 1) / tile_rows, share = sums / p.splits;
  for (int turn = 0; tile < tiles; tile += p.clusters, ++turn) {
    const int set = turn % 2, parity = turn / 2 % 2;
    float old[token_tiles];  // of the values that this thread stores
    if (p.splits == 1) {
#pragma unroll
      for (int n = 0; n < token_tiles; ++n) old[n] = load_old<T>(p, Value(p, tile, n * all + thread));
    } else {
      old[0] = thread < share ? load_old<T>(p, Value(p, tile, part * share + thread)) : 0.f;
    }
    wait_phase(at.full(set), parity);
    float sum[token_tiles];
#pragma unroll
    for (int n = 0; n < token_tiles; ++n) {
      sum[n] = 0.f;
#pragma unroll
      for (int w = 0; w < workers; ++w) sum[n] += load_float(at.parts + ((set * workers + w) * sums + n * all + thread) * 4);
    }
    barrier_arrive(at.free(set));  // and for what it read
    if (p.splits == 1) {
#pragma unroll
      for (int n = 0; n < token_tiles; ++n) store<T>(p, Value(p, tile, n * all + thread), sum[n], old[n]);
      continue;
    }
    if (thread == 0) arrive_expecting(at.landed(set), sums * 4);
#pragma unroll
    for (int n = 0; n < token_tiles; ++n) {
      const int v = n * all + thread, owner = v / share;
      send(at.sent + ((set * p.splits + part) * share + v % share) * 4, sum[n], at.landed(set), owner);
    }
    wait_phase(at.landed(set), parity);
    for (int first = 0; first < share; first += all) {
      const int v = first + thread;
      Value value(p, tile, part * share + v);
      value.exists = value.exists && v < share;
      float total = 0.f;
      for (int s = 0; s < p.splits && v < share; ++s) total += load_float(at.sent + ((set * p.splits + s) * share + v) * 4);
      store<T>(p, value, total, first == 0 ? old[0] : load_old<T>(p, value));
    }
    // A block sends for the tile after the next when it has been sent all of the next; that no block does before this one has
    // read what lies here.
    asm volatile("bar.sync 1, %0;" ::"n"(adders * warp_size) : "memory");
  }
}

template <class T, int token_tiles, int stages>
__global__ void __launch_bounds__(threads, 1) kernel(const FewParams p) {
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ __align__(8) std::uint64_t barriers[6];
  static_assert(adders * warp_size == tile_sums(1));
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int part = blockIdx.x % p.splits, tile = blockIdx.x / p.splits;
  const int x_stride = chunks_of_worker(p.cols, p.splits) * chunk_cols * 2 * p.tokens;  // of a warp

  Places at;
  at.ring = shared_address(shared) + warp * stages * stage_bytes;
  at.x = shared_address(shared) + ring_bytes(stages) + warp * x_stride;
  at.parts = shared_address(shared) + ring_bytes(stages) + workers * x_stride;
  at.sent = at.parts + 2 * workers * tile_sums(token_tiles) * 4;
  at.barriers = shared_address(barriers);

  start_dependents();
  const int worker = part * workers + warp, all_workers = p.splits * workers, all_chunks = chunks_of(p.cols);
  const int chunks = worker < all_chunks ? (all_chunks - 1 - worker) / all_workers + 1 : 0;
  Loader loader{p, lane, worker, all_workers, chunks, at.x + lane * 16, tile, (p.rows + tile_rows - 1) / tile_rows};
  if (warp < workers)
    for (int s = 0; s < stages - 1; ++s) loader.copy_weights(at.ring + s * stage_bytes);
  if (threadIdx.x == 0)
    for (int set = 0; set < 2; ++set) {
      barrier_init(at.full(set), workers * warp_size);
      barrier_init(at.free(set), adders * warp_size);
      barrier_init(at.landed(set), 1);
    }
  __syncthreads();
  if (p.splits > 1) meet_cluster();
  wait_for_prerequisites();  // x may be what the launch before wrote, and y what it read
  if (warp < workers) multiply<T, token_tiles, stages>(p, at, loader, tile, warp, lane);
  else add_up<T, token_tiles>(p, at, tile, part, static_cast<int>(threadIdx.x) - workers * warp_size);
}

}  // namespace few

}  // namespace lmkit::kernels::cuda
