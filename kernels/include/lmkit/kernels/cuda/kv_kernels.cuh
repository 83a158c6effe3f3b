// SPDX-License-Identifier: Apache-2.0
//
// The table of a codec's kernels at one head_dim (cuda_kv.hpp): include it in a .cu file and take the addresses of what the
// codec should serve, here for a codec template over head_dim, products in half precision:
//
//     const KvKernels* const my_tables[] = {&kv_kernels<MyCodec<64>, 64>, &kv_kernels<MyCodec<128>, 128>};
//
// A plain or packed codec is instantiated once per activation type: kv_kernels<Codec, 128, __nv_bfloat16>.
#pragma once

#include <lmkit/kernels/cuda/cuda_kv.hpp>
#include <lmkit/kernels/cuda/kv_append.cuh>
#include <lmkit/kernels/cuda/kv_decode.cuh>
#include <lmkit/kernels/cuda/kv_prefill.cuh>
#include <lmkit/kernels/cuda/kv_prefill_wgmma.cuh>
#include <lmkit/kernels/cuda/launch_config.hpp>

#include <cuda_runtime.h>

#include <algorithm>

namespace lmkit::kernels::cuda {

// Copies the layer parts of blocks: one block of threads for every 16 KiB.
static __global__ void __launch_bounds__(256) copy_blocks_kernel(const std::int32_t* source, const std::int32_t* target, std::byte* pages,
                                                                 std::int64_t stride, std::int64_t bytes) {
  const auto* from = reinterpret_cast<const uint4*>(pages + source[blockIdx.y] * stride);
  auto* to = reinterpret_cast<uint4*>(pages + target[blockIdx.y] * stride);
  const std::int64_t first = blockIdx.x * std::int64_t{1024} + threadIdx.x, end = bytes / 16;
  uint4 x[4];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (first + 256 * n < end) x[n] = from[first + 256 * n];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (first + 256 * n < end) to[first + 256 * n] = x[n];
}

template <class Codec, int head_dim, class T>
struct KvLaunches {
  using Tile = KvTile<Codec, head_dim>;

  // Groups beyond eight take two column tiles where the registers last, two items otherwise.
  static constexpr bool has_wide = head_dim <= 128;
  static constexpr bool wide(int group_size) noexcept { return has_wide && group_size > 8; }

  template <class Kernel>
  static int allow_shared(Kernel* kernel, int bytes) noexcept {
    return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  }

  // A multiprocessor cuts its memory into L1 and shared memory anew only when it is empty. Blocks of decode that start beside
  // the last ones of a launch before must find the cut they need, or some of them wait for a whole decode to end.
  template <class Kernel>
  static int share_cut(Kernel* kernel) noexcept {
    return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }

  // Shared memory a block may have; decode's grows with the sequences of a step.
  static int shared_limit(int& bytes) noexcept {
    int device = 0;
    if (const int error = cudaGetDevice(&device)) return error;
    return cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }

  template <int tiles_of_8>
  static int prepare_decode(DecodeWorkspace& decode) noexcept {
    using Shape = DecodeShape<Codec, head_dim, tiles_of_8>;
    int device = 0, multiprocessors = 0, limit = 0, blocks = 0;
    cudaFuncAttributes attributes{};
    auto* kernel = decode_kernel<Codec, head_dim, tiles_of_8, T>;
    if (const int error = cudaGetDevice(&device)) return error;
    if (const int error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) return error;
    if (const int error = shared_limit(limit)) return error;
    if (const int error = cudaFuncGetAttributes(&attributes, kernel)) return error;
    if (const int error = allow_shared(kernel, limit - static_cast<int>(attributes.sharedSizeBytes))) return error;
    if (const int error = share_cut(kernel)) return error;
    decode.warps = Shape::most_warps;
    while (decode.warps > 1 && Shape::shared_bytes(decode.warps, 1024) > limit) decode.warps /= 2;
    if (const int error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, decode.warps * warp_size,
                                                                        Shape::shared_bytes(decode.warps, 256)))
      return error;
    if (blocks == 0) return cudaErrorInvalidConfiguration;
    decode.overlap = may_overlap(kernel);
    decode.all_workers = multiprocessors * blocks * decode.warps;
    decode.columns = Shape::columns;
    return 0;
  }

  static int prepare(int group_size, DecodeWorkspace& decode) noexcept {
    int error = 0;
    if constexpr (has_wide) error = wide(group_size) ? prepare_decode<2>(decode) : prepare_decode<1>(decode);
    else error = prepare_decode<1>(decode);
    if (error) return error;
    if ((error = share_cut(append_kernel<Codec, head_dim>))) return error;
    if ((error = share_cut(append_chunks_kernel<Codec, head_dim>))) return error;
    if constexpr (Tile::may_centre)
      if ((error = share_cut(mean_kernel<head_dim>))) return error;
    decode.query_tiles = (group_size + decode.columns - 1) / decode.columns;
    if ((error = prepare_warpgroups(decode.warpgroups))) return error;
    return allow_shared(prefill_kernel<Codec, head_dim, T>, PrefillShape<Codec, head_dim>::shared_bytes);
  }

  // Whether what this device runs was built for sm_90a.
  static int prepare_warpgroups(std::int32_t& blocks) noexcept {
    blocks = 0;
    if constexpr (PrefillFeed<Codec, head_dim>::served) {
      cudaFuncAttributes attributes{};
      auto* kernel = prefill_warpgroup_kernel<Codec, head_dim, T>;
      if (const int error = cudaFuncGetAttributes(&attributes, kernel)) return error;
      if (attributes.sharedSizeBytes == 0) return 0;
      int device = 0;
      if (const int error = cudaGetDevice(&device)) return error;
      if (const int error = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device)) return error;
      return allow_shared(kernel, WarpgroupShape<Codec, head_dim>::shared_bytes);
    }
    return 0;
  }

  static std::uint32_t* arrivals_of(const DecodeWorkspace& decode, void* workspace) noexcept {
    return reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(workspace) + decode.counters_at);
  }

  static int append(const KvView& view, const DecodeWorkspace& decode, const KvAppend& args, void* stream) noexcept {
    AppendParams p{};
    p.view = view;
    p.q = static_cast<std::uint16_t*>(args.q);
    p.k = static_cast<const std::uint16_t*>(args.k);
    p.v = static_cast<const std::uint16_t*>(args.v);
    p.q_stride = args.q_stride;
    p.kv_stride = args.kv_stride;
    p.rope_pairs = args.rope_pairs;
    p.rotary_dim = args.rotary_dim;
    p.rope_table = reinterpret_cast<const float2*>(args.rope_table);
    p.tokens = args.tokens;
    p.arrivals = arrivals_of(decode, args.workspace);
    p.counters_each = view.kv_heads * decode.query_tiles * decode.warps;
    LaunchConfig config{.block = dim3(append_warps * warp_size), .stream = static_cast<cudaStream_t>(stream), .overlap = decode.overlap};
    const auto blocks = [](int count, int each) { return static_cast<unsigned>((count + each - 1) / each); };
    if (args.tokens <= view.sequences) {  // every sequence has one new token, as a rule
      config.grid = dim3(args.tokens, blocks(view.query_heads + 2 * view.kv_heads, append_warps));
      return config.launch(append_kernel<Codec, head_dim>, p);
    }
    if constexpr (Tile::may_centre) {
      const dim3 grid(blocks(args.tokens, mean_stretch), view.kv_heads);
      if (view.centred) mean_kernel<head_dim><<<grid, mean_rows * warp_size, 0, config.stream>>>(p);
    }
    config.grid = dim3(blocks(args.tokens, tile_tokens), view.kv_heads + blocks(view.query_heads, chunk_queries));
    return config.launch(append_chunks_kernel<Codec, head_dim>, p);
  }

  template <int tiles_of_8>
  static int decode(const DecodeParams& p, int warps, void* stream) noexcept {
    using Shape = DecodeShape<Codec, head_dim, tiles_of_8>;
    const LaunchConfig config{.grid = dim3(p.all_workers / warps),
                              .block = dim3(warps * warp_size),
                              .shared = static_cast<std::size_t>(Shape::shared_bytes(warps, p.view.sequences)),
                              .stream = static_cast<cudaStream_t>(stream),
                              .overlap = p.overlap};
    return config.launch(decode_kernel<Codec, head_dim, tiles_of_8, T>, p);
  }

  static int attend(const KvView& view, const DecodeWorkspace& decode, const KvAttend& args, void* stream) noexcept {
    DecodeParams d{};
    d.view = view;
    d.q = static_cast<const std::uint16_t*>(args.q);
    d.out = static_cast<std::uint16_t*>(args.out);
    d.q_stride = args.q_stride;
    d.out_stride = args.out_stride;
    d.scale = args.soft_cap > 0 ? args.scale / args.soft_cap : args.scale * 1.44269504f;
    d.soft_cap = args.soft_cap;
    d.window = args.window;
    d.query_tiles = decode.query_tiles;
    d.overlap = decode.overlap;
    d.all_workers = decode.all_workers;
    d.slot_columns = decode.columns;
    d.arrivals = arrivals_of(decode, args.workspace);
    d.slots = static_cast<float*>(args.workspace);
    if constexpr (has_wide) {
      if (const int error = wide(view.group_size) ? KvLaunches::decode<2>(d, decode.warps, stream) : KvLaunches::decode<1>(d, decode.warps, stream)) return error;
    } else {
      if (const int error = KvLaunches::decode<1>(d, decode.warps, stream)) return error;
    }
    if (args.max_query_tokens <= 1) return 0;
    const PrefillParams p{view, d.q, d.out, d.q_stride, d.out_stride, d.scale, d.soft_cap, d.window};
    if constexpr (PrefillFeed<Codec, head_dim>::served)
      if (decode.warpgroups) {
        using Shape = WarpgroupShape<Codec, head_dim>;
        prefill_warpgroup_kernel<Codec, head_dim, T><<<decode.warpgroups, Shape::threads, Shape::shared_bytes, static_cast<cudaStream_t>(stream)>>>(p);
        return cudaGetLastError();
      }
    return prefill<PrefillShape<Codec, head_dim>>(prefill_kernel<Codec, head_dim, T>, p, args.max_query_tokens, stream);
  }

  template <class Shape, class Kernel>
  static int prefill(Kernel* kernel, const PrefillParams& p, int most_tokens, void* stream) noexcept {
    const dim3 grid(p.view.query_heads, (most_tokens + Shape::rows - 1) / Shape::rows, p.view.sequences);
    kernel<<<grid, Shape::threads, Shape::shared_bytes, static_cast<cudaStream_t>(stream)>>>(p);
    return cudaGetLastError();
  }

  static int copy(const KvCopy& args, std::int64_t bytes, void* stream) noexcept {
    const dim3 grid(static_cast<unsigned>((bytes + 16383) / 16384), args.count);
    copy_blocks_kernel<<<grid, 256, 0, static_cast<cudaStream_t>(stream)>>>(
        args.source, args.target, static_cast<std::byte*>(args.base) + args.layer_offset, args.block_stride, bytes);
    return cudaGetLastError();
  }

  static const char* describe(int error) noexcept { return cudaGetErrorString(static_cast<cudaError_t>(error)); }
};

template <class T>
inline constexpr int dtype_of = LMKIT_F16;
template <>
inline constexpr int dtype_of<__nv_bfloat16> = LMKIT_BF16;

template <class Codec, int head_dim, class T = __half>
inline constexpr KvKernels kv_kernels = {head_dim,
                                         KvTile<Codec, head_dim>::folded ? -1 : dtype_of<T>,
                                         KvTile<Codec, head_dim>::bytes,
                                         KvTile<Codec, head_dim>::mean_bytes,
                                         KvLaunches<Codec, head_dim, T>::prepare,
                                         KvLaunches<Codec, head_dim, T>::append,
                                         KvLaunches<Codec, head_dim, T>::attend,
                                         KvLaunches<Codec, head_dim, T>::copy,
                                         KvLaunches<Codec, head_dim, T>::describe};

}  // namespace lmkit::kernels::cuda
