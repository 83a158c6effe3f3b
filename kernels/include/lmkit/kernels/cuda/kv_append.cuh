// SPDX-License-Identifier: Apache-2.0
//
// append: rotates q and k by position, optionally turns q, k and v by a Hadamard matrix, encodes k and v and writes them
// to their pages, in one launch. Moves (query_heads * 2 + 2 kv_heads) * head_dim activations and the page bytes a token.
//
// A block of 128 threads takes 16 rows (heads of q, k, v) of one token. A row is rotated by a warp in shared memory; a
// group of values is encoded by one thread, because a codec sees whole groups; all threads then scatter the codes.
#pragma once

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

inline constexpr int append_rows = 16;
inline constexpr int append_threads = 128;

__device__ __forceinline__ float load_activation(std::uint16_t bits, bool is_bf16) {
  return is_bf16 ? __uint_as_float(static_cast<std::uint32_t>(bits) << 16) : __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ std::uint16_t store_activation(float x, bool is_bf16) {
  return is_bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : __half_as_ushort(__float2half_rn(x));
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

// x: (head_dim), a row of k (part 0) or v (part 1) of token t of `tile`. Encodes group `group` into `packed`.
template <class Codec>
__device__ __forceinline__ void encode_group(const float* x, typename Codec::Packed* packed) {
  Vec<float, Codec::group> values;
#pragma unroll
  for (int d = 0; d < Codec::group; ++d) values[d] = x[d];
  *packed = Codec{}.encode(values);
}

template <class Codec, int head_dim>
__global__ void __launch_bounds__(append_threads) append_kernel(const AppendParams p) {
  using Tile = KvTile<Codec, head_dim>;
  using Packed = typename Codec::Packed;
  constexpr int pitch = head_dim + 1;  // threads that encode neighbouring rows read different banks
  __shared__ float rows[append_rows][pitch];
  __shared__ Packed codes[Tile::plain ? 1 : append_rows][Tile::groups];

  const KvView& view = p.view;
  const int token = blockIdx.x, first_row = blockIdx.y * append_rows;
  const int thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size;
  const int sequence = view.token_sequence[token];
  const int position = view.kv_lengths[sequence] - view.query_starts[sequence + 1] + token;
  const int first_k = view.query_heads, first_v = first_k + view.kv_heads, end = first_v + view.kv_heads;

  for (int r = warp; r < append_rows && first_row + r < end; r += append_threads / warp_size) {
    const int row = first_row + r;
    float* x = rows[r];
    const std::uint16_t* source = row < first_k   ? p.q + token * p.q_stride + row * head_dim
                                  : row < first_v ? p.k + token * p.kv_stride + (row - first_k) * head_dim
                                                  : p.v + token * p.kv_stride + (row - first_v) * head_dim;
    for (int d = lane; d < head_dim; d += warp_size) x[d] = load_activation(source[d], view.is_bf16);
    __syncwarp();
    if (row < first_v && p.rope_pairs != LMKIT_ROPE_NONE)
      rope_warp(x, p.rope_table + static_cast<std::int64_t>(position) * (p.rotary_dim / 2), p.rotary_dim, p.rope_pairs, lane);
    __syncwarp();
    if (view.hadamard) hadamard_warp<head_dim>(x, lane);
    if (row < first_k)
      for (int d = lane; d < head_dim; d += warp_size) p.q[token * p.q_stride + row * head_dim + d] = store_activation(x[d], view.is_bf16);
  }
  if (first_row + append_rows <= first_k) return;
  __syncthreads();

  const auto stores = [&](int r) { return first_row + r >= first_k && first_row + r < end; };
  if constexpr (!Tile::plain) {
    for (int n = thread; n < append_rows * Tile::groups; n += append_threads) {
      const int r = n % append_rows, g = n / append_rows;
      if (stores(r)) encode_group<Codec>(rows[r] + g * Codec::group, &codes[r][g]);
    }
    __syncthreads();
  }

  const int slot = position % view.block_tokens, t = slot % tile_tokens;
  const int block = view.block_tables[sequence * view.block_table_stride + position / view.block_tokens];
  for (int r = warp; r < append_rows; r += append_threads / warp_size) {
    if (!stores(r)) continue;
    const int part = first_row + r >= first_v;
    std::byte* tile = view.tile(block, first_row + r - (part ? first_v : first_k), slot / tile_tokens, Tile::bytes);
    if constexpr (Tile::plain) {
      for (int u = lane; u < Tile::units; u += warp_size)
        *reinterpret_cast<std::uint16_t*>(tile + (part ? Tile::value_unit(t, u) : Tile::key_unit(t, u))) =
            store_activation(rows[r][u], view.is_bf16);
    } else if constexpr (Tile::folded) {
      constexpr int group_bytes = Codec::group * Tile::bits() / 8;
      for (int u = lane; u < Tile::units; u += warp_size)
        tile[part ? Tile::value_unit(t, u) : Tile::key_unit(t, u)] = static_cast<std::byte>(codes[r][u / group_bytes].codes[u % group_bytes]);
      for (int g = lane; g < Tile::groups; g += warp_size) {
        auto* scale = reinterpret_cast<std::uint16_t*>(tile + Tile::scale_place(t, g)) + part * (Tile::scale_halves / 2);
        scale[0] = codes[r][g].scale.bits;
        if constexpr (!Tile::symmetric()) scale[1] = codes[r][g].bias.bits;
      }
    } else {
      constexpr int packed_bytes = Tile::groups * static_cast<int>(sizeof(Packed));
      const auto* bytes = reinterpret_cast<const std::byte*>(&codes[r][0]);
      for (int b = lane; b < packed_bytes; b += warp_size) tile[Tile::packed_place(part, t, 0) + b] = bytes[b];
    }
  }
}

}  // namespace lmkit::kernels::cuda
