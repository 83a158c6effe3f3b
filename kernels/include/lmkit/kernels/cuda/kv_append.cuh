// SPDX-License-Identifier: Apache-2.0
//
// append: rotates q and k by position, optionally turns q, k and v by a Hadamard matrix and centres k, encodes k and v and
// writes them to their pages, in one launch. Moves (2 query_heads + 2 kv_heads) head_dim activations and the page bytes a token.
//
// A warp takes one row, a head of q, k or v of one token, through all of it in shared memory. A group of values is encoded
// by one lane, because a codec sees whole groups, or by the warp where WarpEncoder knows how.
//
// Centred keys need the whole mean of the block before. A sequence's only new token finds it in the page, and joins its own
// block's mean. Of chunks a launch before this one, mean_kernel, brings the means of all their blocks up to date; it reads
// the keys once more.
#pragma once

#include <lmkit/kernels/cuda/affine_warp.cuh>
#include <lmkit/kernels/cuda/hadamard.cuh>
#include <lmkit/kernels/cuda/kv_centre.cuh>
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
  std::int32_t tokens;
  bool means_are_ready;      // of chunks
  std::uint32_t* arrivals;   // attend's counters: (sequences, counters_each)
  std::int32_t counters_each;
};

inline constexpr int append_rows = 8;
inline constexpr int mean_rows = 16;     // keys that mean_kernel turns at once
inline constexpr int mean_stretch = 64;  // tokens of the step whose blocks' means a block of mean_kernel's threads takes

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
    x[i * step] = fmaf(a, angle.x, -__fmul_rn(b, angle.y));  // the same bits in every kernel
    x[i * step + partner] = fmaf(a, angle.y, __fmul_rn(b, angle.x));
  }
}

__device__ __forceinline__ const float2* angles_of(const AppendParams& p, int position) {
  return p.rope_table + static_cast<std::int64_t>(position) * (p.rotary_dim / 2);
}

// Loads a head and turns it: x as it is stored, before it is centred. angles: of the position; null: it is not rotated
template <int head_dim>
__device__ __forceinline__ void load_turned(const AppendParams& p, const std::uint16_t* source, const float2* angles, float* x, int lane) {
  load_row(source, x, head_dim, p.view.is_bf16, lane);
  __syncwarp();
  if (angles && p.rope_pairs != LMKIT_ROPE_NONE) {
    rope_warp(x, angles, p.rotary_dim, p.rope_pairs, lane);
    __syncwarp();
  }
  if (p.view.hadamard) hadamard_warp<head_dim>(x, lane);
}

__device__ __forceinline__ int position_of(const KvView& view, int token, int sequence) {
  return view.kv_lengths[sequence] - view.query_starts[sequence + 1] + token;
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

// What a key needs of the means of its block and of the block before, fetched before the key itself.
template <int head_dim>
struct KeyMeans {
  using Mean = Centre<head_dim>;
  static constexpr int share = (head_dim + 4 * warp_size - 1) / (4 * warp_size);  // fours of dimensions a lane has
  std::byte* strip;
  bool joins;  // the key joins its block's mean here
  int slot;
  uint2 own[share], before[share];

  __device__ __forceinline__ KeyMeans(const KvView& view, int sequence, int head, int position, bool joins, int lane) : joins(joins) {
    const int index = position / view.block_tokens;
    slot = position % view.block_tokens;
    strip = view.mean(view.block(sequence, index), head, Mean::bytes);
    const std::byte* other = index > 0 ? view.mean(view.block(sequence, index - 1), head, Mean::bytes) : nullptr;
#pragma unroll
    for (int n = 0; n < share; ++n) {
      const int at = 8 * (lane + n * warp_size);
      own[n] = before[n] = make_uint2(0, 0);
      if (at >= Mean::copied) continue;
      if (joins && slot > 0) own[n] = *reinterpret_cast<const uint2*>(strip + at);
      if (other) before[n] = *reinterpret_cast<const uint2*>(other + at);
    }
  }

  // x: a turned key in shared memory. All lanes call.
  __device__ __forceinline__ void centre(float* x, int lane) const {
#pragma unroll
    for (int n = 0; n < share; ++n) {
      const int at = lane + n * warp_size;
      if (4 * at >= head_dim) continue;
      float4 key = reinterpret_cast<float4*>(x)[at], mean = Mean::unpack4(own[n]);
      if (joins) {
        mean.x = Mean::next(mean.x, key.x, slot), mean.y = Mean::next(mean.y, key.y, slot);
        mean.z = Mean::next(mean.z, key.z, slot), mean.w = Mean::next(mean.w, key.w, slot);
        reinterpret_cast<uint2*>(strip)[at] = Mean::pack4(mean);
      }
      const float4 other = Mean::unpack4(before[n]);
      key.x -= other.x, key.y -= other.y, key.z -= other.z, key.w -= other.w;
      reinterpret_cast<float4*>(x)[at] = key;
    }
    __syncwarp();
  }
};

// Where a token of a head lies.
struct TokenPlace {
  std::byte* tile;
  int token;  // of the tile's
};
template <class Tile>
__device__ __forceinline__ TokenPlace place_of(const KvView& view, int sequence, int head, int position) {
  const int index = position / view.block_tokens, slot = position - index * view.block_tokens;
  return {view.tile(view.block(sequence, index), head, slot / tile_tokens, Tile::bytes), slot % tile_tokens};
}

// Grid: (tokens, rows / append_rows). Six blocks a multiprocessor: a step of 128 sequences of 48 rows is one wave of an H200.
template <class Codec, int head_dim>
__global__ void __launch_bounds__(append_rows* warp_size, 6) append_kernel(const AppendParams p) {
  using Tile = KvTile<Codec, head_dim>;
  __shared__ __align__(16) float rows[append_rows][head_dim];
  __shared__ typename Codec::Packed codes[append_rows][Tile::plain ? 1 : Tile::groups];
  __shared__ float2 near_angles[head_dim / 2];
  const KvView& view = p.view;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int row = blockIdx.y * append_rows + warp;
  const int first_k = view.query_heads, first_v = first_k + view.kv_heads;

  start_dependents();
  // While the launch before ends: the step's arrays, and the angles of the token's position.
  int token = blockIdx.x, end = token + 1;
  const int sequence = view.token_sequence[token];
  int position = position_of(view, token, sequence);
  const int part = row >= first_v, head = row - (part ? first_v : first_k);
  TokenPlace place{};
  if (row >= first_k) place = place_of<Tile>(view, sequence, head, position);
  if (p.rope_pairs != LMKIT_ROPE_NONE)
    for (int i = threadIdx.x; i < p.rotary_dim / 2; i += blockDim.x) near_angles[i] = angles_of(p, position)[i];
  __syncthreads();
  wait_for_prerequisites();
  if (blockIdx.y == 0)
    for (int n = threadIdx.x; n < p.counters_each; n += blockDim.x) p.arrivals[sequence * p.counters_each + n] = 0;
  if (row >= first_v + view.kv_heads) return;

  float* x = rows[warp];
  if (row < first_k) {
    std::uint16_t* q = p.q + token * p.q_stride + row * head_dim;
    load_turned<head_dim>(p, q, near_angles, x, lane);
    return store_row(x, q, head_dim, view.is_bf16, lane);
  }
  const std::uint16_t* source = (part ? p.v : p.k) + head * head_dim;
  bool joins = false;  // keys join their mean here
  if constexpr (Tile::may_centre) {
    const bool alone = view.new_tokens(sequence) == 1;
    joins = alone || !p.means_are_ready;
    if (view.centred && part == 0 && !alone && joins) {  // a chunk where none was expected: its first token's warp takes it all, in order
      if (token != view.query_starts[sequence]) return;
      end = view.query_starts[sequence + 1];
    }
  }
  const float2* angles = part == 0 ? near_angles : nullptr;
#pragma unroll 1
  for (;;) {
    const std::uint16_t* given = source + token * p.kv_stride;
    if (Tile::may_centre && view.centred && part == 0) {
      const KeyMeans<head_dim> means(view, sequence, head, position, joins, lane);
      load_turned<head_dim>(p, given, angles, x, lane);
      means.centre(x, lane);
    } else {
      load_turned<head_dim>(p, given, angles, x, lane);
    }
    if constexpr (!Tile::plain) encode_row<Codec, head_dim>(x, codes[warp], lane);
    write_row<Codec, head_dim>(place.tile, part, place.token, x, codes[warp], view.is_bf16, lane);
    if (++token == end) return;
    __syncwarp();
    place = place_of<Tile>(view, sequence, head, ++position);
    angles = angles_of(p, position);  // only keys come in chunks here
  }
}

// Brings the means of the blocks that chunks write to up to date. Grid: (step tokens / mean_stretch, kv_heads); a block of
// threads takes the runs of tokens of one block that begin in its stretch.
template <int head_dim>
__global__ void __launch_bounds__(mean_rows* warp_size) mean_kernel(const AppendParams p) {
  using Mean = Centre<head_dim>;
  constexpr int room = 8192 / head_dim;  // keys at a time
  __shared__ __align__(16) float keys[room][head_dim];
  __shared__ std::uint32_t opens[mean_stretch / warp_size];  // which tokens of the stretch open a run
  const KvView& view = p.view;
  const int thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size, head = blockIdx.y, begin = blockIdx.x * mean_stretch;
  if (thread < mean_stretch) {
    const int token = begin + thread;
    bool open = false;
    if (token < p.tokens) {
      const int sequence = view.token_sequence[token];
      const bool first = token == view.query_starts[sequence] || position_of(view, token, sequence) % view.block_tokens == 0;
      open = first && view.new_tokens(sequence) > 1;
    }
    const std::uint32_t some = __ballot_sync(full_warp, open);
    if (lane == 0) opens[warp] = some;
  }
  __syncthreads();
  for (int part = 0; part < mean_stretch / warp_size; ++part)
    for (std::uint32_t rest = opens[part]; rest != 0; rest &= rest - 1) {
      const int first = begin + part * warp_size + __ffs(static_cast<int>(rest)) - 1;
      const int sequence = view.token_sequence[first], position = position_of(view, first, sequence), slot = position % view.block_tokens;
      const int count = min(view.query_starts[sequence + 1] - first, view.block_tokens - slot);
      std::byte* strip = view.mean(view.block(sequence, position / view.block_tokens), head, Mean::bytes);
      float mean = thread < head_dim && slot > 0 ? Mean::get(strip, thread) : 0.f;
      for (int base = 0; base < count; base += room) {
        const int now = min(room, count - base);
        for (int n = warp; n < now; n += mean_rows)
          load_turned<head_dim>(p, p.k + (first + base + n) * p.kv_stride + head * head_dim, angles_of(p, position + base + n), keys[n], lane);
        __syncthreads();
        if (thread < head_dim)
#pragma unroll 4
          for (int n = 0; n < now; ++n) mean = Mean::next(mean, keys[n][thread], slot + base + n);
        __syncthreads();
      }
      if (thread < head_dim) Mean::put(strip, thread, mean);
    }
}

}  // namespace lmkit::kernels::cuda
