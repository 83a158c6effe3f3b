// SPDX-License-Identifier: Apache-2.0
//
// append: rotates q and k by position, optionally turns q, k and v by a Hadamard matrix, encodes k and v and writes them
// to their pages, in one launch. Moves (2 query_heads + 2 kv_heads) head_dim activations and the page bytes a token.
//
// A warp takes one row, a head of q, k or v of one token, through all of it in shared memory. A group of values is encoded
// by one lane, because a codec sees whole groups, or by the warp where WarpEncoder knows how.
#pragma once

#include <lmkit/kernels/cuda/affine_warp.cuh>
#include <lmkit/kernels/cuda/hadamard.cuh>
#include <lmkit/kernels/cuda/kv_tile.cuh>
#include <lmkit/kernels/cuda/kv_view.cuh>

namespace lmkit::kernels::cuda {

struct AppendParams {
  KvView view;
  std::uint16_t* q;        // (tokens, query_heads, head_dim)
  const std::uint16_t* k;  // (tokens, kv_heads, head_dim)
  const std::uint16_t* v;
  std::int64_t q_stride, kv_stride;
  std::int32_t rope_pairs, rotary_dim;
  const float2* rope_table;  // (max_context, rotary_dim / 2)
};

inline constexpr int append_rows = 8;

__device__ __forceinline__ void load_row(const std::uint16_t* source, float* x, int head_dim, bool is_bf16, int lane) {
  for (int d = 4 * lane; d < head_dim; d += 4 * warp_size) {
    const uint2 raw = *reinterpret_cast<const uint2*>(source + d);
    const float2 a = load2(raw.x, is_bf16), b = load2(raw.y, is_bf16);
    *reinterpret_cast<float4*>(x + d) = make_float4(a.x, a.y, b.x, b.y);
  }
}
__device__ __forceinline__ void store_row(const float* x, std::uint16_t* target, int head_dim, bool is_bf16, int lane) {
  for (int d = 4 * lane; d < head_dim; d += 4 * warp_size) {
    const float4 y = *reinterpret_cast<const float4*>(x + d);
    *reinterpret_cast<uint2*>(target + d) = make_uint2(store2(y.x, y.y, is_bf16), store2(y.z, y.w, is_bf16));
  }
}

// x: one head in shared memory; angles: (rotary_dim / 2) cosine and sine of the position
__device__ __forceinline__ void rope_warp(float* x, const float2* angles, int rotary_dim, int pairs, int lane) {
  const int step = pairs == LMKIT_ROPE_ADJACENT ? 2 : 1;
  const int partner = pairs == LMKIT_ROPE_ADJACENT ? 1 : rotary_dim / 2;
  for (int i = lane; i < rotary_dim / 2; i += warp_size) {
    const float2 angle = angles[i];
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = a * angle.x - b * angle.y;
    x[i * step + partner] = a * angle.y + b * angle.x;
  }
}

// Encodes a row by groups; packed: (groups) in shared memory.
template <class Codec, int head_dim>
__device__ __forceinline__ void encode_row(const float* x, typename Codec::Packed* packed, int lane) {
  constexpr int groups = head_dim / Codec::group;
  if constexpr (WarpEncoder<Codec>::exists) {
    for (int g = 0; g < groups; ++g) WarpEncoder<Codec>{}.encode(x + g * Codec::group, packed[g], lane);
  } else {
    for (int g = lane; g < groups; g += warp_size) {
      Vec<float, Codec::group> values;
#pragma unroll
      for (int d = 0; d < Codec::group; ++d) values[d] = x[g * Codec::group + d];
      packed[g] = Codec{}.encode(values);
    }
  }
  __syncwarp();
}

// Writes a row to token t of a tile; part 0: keys, 1: values.
template <class Codec, int head_dim>
__device__ __forceinline__ void write_row(std::byte* tile, int part, int t, const float* x, const typename Codec::Packed* packed, bool is_bf16,
                                          int lane) {
  using Tile = KvTile<Codec, head_dim>;
  if constexpr (Tile::plain) {
    for (int u = 2 * lane; u < Tile::units; u += 2 * warp_size) {
      const std::uint32_t pair = store2(x[u], x[u + 1], is_bf16);
      if (part == 0) {
        *reinterpret_cast<std::uint32_t*>(tile + Tile::key_unit(t, u)) = pair;
      } else {
        *reinterpret_cast<std::uint16_t*>(tile + Tile::value_unit(t, u)) = static_cast<std::uint16_t>(pair);
        *reinterpret_cast<std::uint16_t*>(tile + Tile::value_unit(t, u + 1)) = static_cast<std::uint16_t>(pair >> 16);
      }
    }
  } else if constexpr (Tile::folded) {
    constexpr int group_bytes = Codec::group * Tile::bits() / 8;
    for (int u = lane; u < Tile::units; u += warp_size)
      tile[part ? Tile::value_unit(t, u) : Tile::key_unit(t, u)] = static_cast<std::byte>(packed[u / group_bytes].codes[u % group_bytes]);
    for (int g = lane; g < Tile::groups; g += warp_size) {
      auto* scale = reinterpret_cast<std::uint16_t*>(tile + Tile::scale_place(t, g)) + part * (Tile::scale_halves / 2);
      scale[0] = packed[g].scale.bits;
      if constexpr (!Tile::symmetric()) scale[1] = packed[g].bias.bits;
    }
  } else {
    constexpr int packed_bytes = Tile::groups * static_cast<int>(sizeof(typename Codec::Packed));
    const auto* bytes = reinterpret_cast<const std::byte*>(packed);
    for (int b = lane; b < packed_bytes; b += warp_size) tile[Tile::packed_place(part, t, 0) + b] = bytes[b];
  }
}

// Grid: (tokens, rows / append_rows)
template <class Codec, int head_dim>
__global__ void __launch_bounds__(append_rows* warp_size) append_kernel(const AppendParams p) {
  using Tile = KvTile<Codec, head_dim>;
  __shared__ __align__(16) float rows[append_rows][head_dim];
  __shared__ typename Codec::Packed codes[append_rows][Tile::plain ? 1 : Tile::groups];
  const KvView& view = p.view;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int token = blockIdx.x, row = blockIdx.y * append_rows + warp;
  const int first_k = view.query_heads, first_v = first_k + view.kv_heads;
  start_dependents();  // decode may look at the step's arrays meanwhile
  if (row >= first_v + view.kv_heads) return;

  const int sequence = view.token_sequence[token];
  const int position = view.kv_lengths[sequence] - view.query_starts[sequence + 1] + token;
  std::uint16_t* q = p.q + token * p.q_stride + row * head_dim;
  const std::uint16_t* source = row < first_k   ? q
                                : row < first_v ? p.k + token * p.kv_stride + (row - first_k) * head_dim
                                                : p.v + token * p.kv_stride + (row - first_v) * head_dim;
  float* x = rows[warp];
  load_row(source, x, head_dim, view.is_bf16, lane);
  __syncwarp();
  if (row < first_v && p.rope_pairs != LMKIT_ROPE_NONE) {
    rope_warp(x, p.rope_table + static_cast<std::int64_t>(position) * (p.rotary_dim / 2), p.rotary_dim, p.rope_pairs, lane);
    __syncwarp();
  }
  if (view.hadamard) hadamard_warp<head_dim>(x, lane);
  if (row < first_k) return store_row(x, q, head_dim, view.is_bf16, lane);

  if constexpr (!Tile::plain) encode_row<Codec, head_dim>(x, codes[warp], lane);
  const int part = row >= first_v, slot = position % view.block_tokens;
  const int block = view.block_tables[sequence * view.block_table_stride + position / view.block_tokens];
  std::byte* tile = view.tile(block, row - (part ? first_v : first_k), slot / tile_tokens, Tile::bytes);
  write_row<Codec, head_dim>(tile, part, slot % tile_tokens, x, codes[warp], view.is_bf16, lane);
}

}  // namespace lmkit::kernels::cuda
