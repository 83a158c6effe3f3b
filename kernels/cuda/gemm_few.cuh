// SPDX-License-Identifier: Apache-2.0
//
// y = x Wᵀ for up to 32 tokens. Cost: the bytes of W, once; x comes from L2 once a block, and stays in shared memory.
//
// A tile of 16 rows of W is the A operand of m16n8k16, eight tokens its B. The eight warps of a block, and the blocks of a
// cluster, share a tile's columns: chunk c, 64 columns, is worker c mod workers'. What a lane multiplies it has copied itself,
// W through a ring of stages that runs on from tile to tile, x once for all tiles. So no thread waits for another until a
// tile's parts are added up, always in the same order. The order of columns within a product is free, so that a lane's share of
// 32 columns is one load of 16 bytes: columns 8i .. 8i+7 stand for the operand's 2i, 2i+1, 2i+8, 2i+9, twice.
//
// W does not depend on the launch before, so the ring is filled before its end.
#pragma once

#include <lmkit/kernels/cuda/prim.cuh>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lmkit::kernels::cuda {

struct FewParams {
  const std::uint16_t* weights;  // (rows, cols)
  const std::uint16_t* bias;     // (rows), or null
  const std::uint16_t* x;        // (tokens, cols)
  void* y;                       // (tokens, rows)
  std::int32_t rows, cols, tokens;
  std::int32_t splits, clusters;
  bool is_f32;  // y
};

namespace few {

inline constexpr int warps = 8, threads = warps * warp_size;
inline constexpr int tile_rows = 16, chunk_cols = 64;
inline constexpr int stage_bytes = tile_rows * chunk_cols * 2;  // of a warp
constexpr int tile_sums(int token_tiles) { return token_tiles * tile_rows * 8; }

constexpr int chunks_of(int cols) { return (cols + chunk_cols - 1) / chunk_cols; }
// Of the first worker, which has the most.
constexpr int chunks_of_worker(int cols, int splits) { return (chunks_of(cols) + splits * warps - 1) / (splits * warps); }

// Shared memory: rings | x | two tiles' sums of each warp | two tiles' sums of the block
constexpr int ring_bytes(int stages) { return warps * stages * stage_bytes; }
constexpr std::int64_t x_bytes(int cols, int splits, int tokens) { return std::int64_t{chunks_of_worker(cols, splits)} * warps * chunk_cols * 2 * tokens; }
constexpr std::int64_t shared_bytes(int cols, int tokens, int token_tiles, int splits, int stages) {
  return ring_bytes(stages) + x_bytes(cols, splits, tokens) + (2 * warps + 2) * tile_sums(token_tiles) * 4;
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

// --- the blocks of a cluster (sm_90) ---
__device__ __forceinline__ void arrive_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// What lies at `address` of the shared memory of block `part`.
__device__ __forceinline__ float load_of_part(std::uint32_t address, int part) {
  float x = 0.f;
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %1, %2; ld.shared::cluster.f32 %0, [there]; }"
      : "=f"(x)
      : "r"(address), "r"(part)
      : "memory");
#endif
  return x;
}

// A lane's share of W and x, chunk by chunk and tile by tile.
struct Loader {
  const FewParams& p;
  int lane, worker, workers, chunks;   // chunks: of this worker in a tile
  std::uint32_t x_at;                  // of this lane's first token, in shared memory
  int tile, tiles, chunk = 0;          // next to be copied
  const std::uint16_t *low = nullptr, *high = nullptr;  // rows g and g + 8 of the tile, at the lane's columns

  __device__ __forceinline__ int col(int chunk) const { return (worker + chunk * workers) * chunk_cols + lane % 4 * 8; }

  __device__ __forceinline__ void find_rows() {
    const int row = tile * tile_rows + lane / 4;  // rows that do not exist repeat the last, and are not stored
    low = p.weights + static_cast<std::int64_t>(min(row, p.rows - 1)) * p.cols;
    high = p.weights + static_cast<std::int64_t>(min(row + 8, p.rows - 1)) * p.cols;
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

  __device__ __forceinline__ std::uint32_t x_place(int chunk, int b, int n) const { return x_at + ((2 * chunk + b) * p.tokens + 8 * n) * 64; }

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

// Where value v lies among a warp's C fragments (n, lane, 4).
__device__ __forceinline__ int fragment_place(int v) {
  const int row = v % 16, token = v / 16 % 8;
  return v / 128 * 128 + (row % 8 * 4 + token / 2) * 4 + row / 8 * 2 + token % 2;
}

// Writes value v of a tile: v = 128 n + 16 (token % 8) + row.
template <class T>
__device__ __forceinline__ void store(const FewParams& p, int tile, int v, float sum) {
  const int row = tile * tile_rows + v % 16, token = v / 16;
  if (row >= p.rows || token >= p.tokens) return;
  if (p.bias) sum += load2(p.bias[row], std::is_same_v<T, __nv_bfloat16>).x;
  const std::int64_t at = static_cast<std::int64_t>(token) * p.rows + row;
  if (p.is_f32) static_cast<float*>(p.y)[at] = sum;
  else static_cast<std::uint16_t*>(p.y)[at] = static_cast<std::uint16_t>(pack2<T>(sum, 0.f));
}

template <class T, int token_tiles, int stages>
__global__ void __launch_bounds__(threads, 2) kernel(const FewParams p) {
  extern __shared__ __align__(128) std::byte shared[];
  constexpr int sums = tile_sums(token_tiles);
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int part = blockIdx.x % p.splits, worker = part * warps + warp, workers = p.splits * warps;
  const int all_chunks = chunks_of(p.cols), chunks = worker < all_chunks ? (all_chunks - 1 - worker) / workers + 1 : 0;
  const int x_stride = chunks_of_worker(p.cols, p.splits) * chunk_cols * 2 * p.tokens;  // of a warp
  const std::uint32_t ring = shared_address(shared) + warp * stages * stage_bytes;
  const std::uint32_t x_at = shared_address(shared) + ring_bytes(stages) + warp * x_stride + lane * 16;
  float* warp_sums = reinterpret_cast<float*>(shared + ring_bytes(stages) + warps * x_stride);  // (2, warps, sums)
  float* block_sums = warp_sums + 2 * warps * sums;                                             // (2, sums)

  Loader loader{p, lane, worker, workers, chunks, x_at, static_cast<int>(blockIdx.x) / p.splits, (p.rows + tile_rows - 1) / tile_rows};
  int tile = loader.tile;
  start_dependents();
  for (int s = 0; s < stages - 1; ++s) loader.copy_weights(ring + s * stage_bytes);
  wait_for_prerequisites();  // x may be what the launch before wrote, and y what it read
  for (int s = 0; s < stages - 1; ++s) {
    loader.template copy_x<token_tiles>(s);
    commit_copies();
  }

  // Adds the parts of a tile up, this block's share of its values, and writes them. The cluster has arrived with them.
  const auto gather = [&](int of_tile, int parity) {
    const std::uint32_t from = shared_address(block_sums + parity * sums);
    for (int v = part * sums / p.splits + threadIdx.x; v < (part + 1) * sums / p.splits; v += threads) {
      float sum = 0.f;
      for (int s = 0; s < p.splits; ++s) sum += load_of_part(from + 4 * v, s);
      store<T>(p, of_tile, v, sum);
    }
  };

  int fill = stages - 1, use = 0, parity = 0, next_x = stages - 1;
  bool is_first = true;
  for (; tile < loader.tiles; tile += p.clusters, parity ^= 1, is_first = false) {
    float c[token_tiles][4] = {};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      wait_copies<stages - 2>();
      loader.copy_weights(ring + fill * stage_bytes);
      if (is_first) loader.template copy_x<token_tiles>(next_x++);
      commit_copies();
      fill = fill + 1 == stages ? 0 : fill + 1;
      const std::uint32_t stage = ring + use * stage_bytes + 16 * lane;
      use = use + 1 == stages ? 0 : use + 1;
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        const uint4 low = load16(stage + 1024 * b), high = load16(stage + 1024 * b + 512);
#pragma unroll
        for (int n = 0; n < token_tiles; ++n) {
          uint4 x = make_uint4(0, 0, 0, 0);
          if (8 * n + lane / 4 < p.tokens) x = load16(loader.x_place(chunk, b, n));
          mma<T>(c[n], low.x, high.x, low.y, high.y, x.x, x.y);
          mma<T>(c[n], low.z, high.z, low.w, high.w, x.z, x.w);
        }
      }
    }

    float* mine = warp_sums + (parity * warps + warp) * sums;
#pragma unroll
    for (int n = 0; n < token_tiles; ++n) *reinterpret_cast<float4*>(mine + n * 128 + lane * 4) = make_float4(c[n][0], c[n][1], c[n][2], c[n][3]);
    __syncthreads();
    if (p.splits > 1 && !is_first) {
      wait_cluster();
      gather(tile - p.clusters, parity ^ 1);
    }
    for (int v = threadIdx.x; v < sums; v += threads) {
      const float* from = warp_sums + parity * warps * sums + fragment_place(v);
      float sum = 0.f;
#pragma unroll
      for (int w = 0; w < warps; ++w) sum += from[w * sums];
      if (p.splits == 1) store<T>(p, tile, v, sum);
      else block_sums[parity * sums + v] = sum;
    }
    if (p.splits > 1) arrive_cluster();
  }
  if (p.splits > 1) {
    wait_cluster();
    gather(tile - p.clusters, parity ^ 1);
    arrive_cluster();  // no block ends before others have read its sums
    wait_cluster();
  }
  wait_copies<0>();
}

}  // namespace few

}  // namespace lmkit::kernels::cuda
