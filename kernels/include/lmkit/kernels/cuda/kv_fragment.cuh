// SPDX-License-Identifier: Apache-2.0
//
// From the words of a tile to tensor-core fragments.
//
// A code is given to the tensor core as it is: under zero bits it reads as a subnormal half, c 2^-24, or c 2^-20 four bits
// higher, and subnormals multiply exactly at full speed. So 8 codes of 4 bits cost 5 instructions (4 LOP3, a shift), 4 codes
// of 8 bits cost 2 (PRMT), and nothing has to be taken off an element or a sum afterwards; the powers of two go into the
// queries, the softmax scale and the last step of the values.
#pragma once

#include <lmkit/kernels/cuda/kv_tile.cuh>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

struct Fragment {
  std::uint32_t a0, a1, a2, a3;
};

template <class Tile>
struct Unpack {
  static constexpr int bits = Tile::bits();
  // The code that stands for 0 where the codec is symmetric: its bias is -zero times the scale.
  static constexpr float zero = Tile::folded && Tile::symmetric() ? 1 << (bits - 1) : 0;
  // What a code of an even and of an odd dimension must be multiplied by.
  static constexpr float even_unit = bits == 16 ? 1.f : 0x1p24f;
  static constexpr float odd_unit = bits == 4 ? 0x1p20f : even_unit;

  // words: the fragment_words words of one fragment
  __device__ __forceinline__ static Fragment keys(const std::uint32_t* words) {
    if constexpr (bits == 4) {
      const std::uint32_t x = words[0], y = x >> 8;  // token g; token g + 8
      return {x & 0x000f000fu, y & 0x000f000fu, x & 0x00f000f0u, y & 0x00f000f0u};
    } else if constexpr (bits == 8) {
      return {__byte_perm(words[0], 0, 0x4140), __byte_perm(words[1], 0, 0x4140), __byte_perm(words[0], 0, 0x4342),
              __byte_perm(words[1], 0, 0x4342)};
    } else {
      return {words[0], words[2], words[1], words[3]};
    }
  }

  __device__ __forceinline__ static Fragment values(const std::uint32_t* words) {
    if constexpr (bits == 4) {
      const std::uint32_t x = words[0], y = x >> 8;  // tokens 2i 2i+1; tokens 2i+8 2i+9
      return {x & 0x000f000fu, x & 0x00f000f0u, y & 0x000f000fu, y & 0x00f000f0u};
    } else {
      return keys(words);
    }
  }

  // Of the four queries' dimensions 4i .. 4i+3: which belong to columns 2i 2i+1, the rest to 2i+8 2i+9.
  template <class T>
  __device__ __forceinline__ static void query(const float (&x)[4], std::uint32_t& low, std::uint32_t& high) {
    if constexpr (bits == 4) {
      constexpr float odd = odd_unit / even_unit;
      low = pack2<T>(x[0], x[2]);
      high = pack2<T>(x[1] * odd, x[3] * odd);
    } else {
      low = pack2<T>(x[0], x[1]);
      high = pack2<T>(x[2], x[3]);
    }
  }
  // Multiplied with fragments of queries, these give even_unit sum(q): 1 for the low columns, what query() took off the high.
  static constexpr std::uint32_t low_ones = 0x3c003c00u, high_ones = bits == 4 ? 0x4c004c00u : 0x3c003c00u;
};

// A lane's words of a tile's keys or values.
template <class Tile>
__device__ __forceinline__ void load_tile_words(const std::byte* part, int lane, std::uint32_t (&words)[Tile::words]) {
#pragma unroll
  for (int w = 0; w < Tile::words; w += Tile::run) {
    const Words<Tile::run> loaded = load_words<Tile::run>(part + Tile::word_offset(w, lane));
#pragma unroll
    for (int j = 0; j < Tile::run; ++j) words[w + j] = loaded.at[j];
  }
}

// scale and bias of keys and values of one token; biases are 0 where the codec is symmetric
struct TokenScales {
  float key_scale, key_bias, value_scale, value_bias;
};

// Those of tokens g and g + 8.
template <class Tile>
__device__ __forceinline__ void load_scales(const std::byte* tile, int group, int g, TokenScales& low, TokenScales& high) {
  const std::byte* place = tile + Tile::scales_at + (group * 8 + g) * Tile::scale_bytes;
  if constexpr (Tile::symmetric()) {
    const Words<2> w = load_words<2>(place);
    const float2 a = unpack_half2(w.at[0]), b = unpack_half2(w.at[1]);
    low = {a.x, 0.f, a.y, 0.f};
    high = {b.x, 0.f, b.y, 0.f};
  } else {
    const Words<4> w = load_words<4>(place);
    const float2 a = unpack_half2(w.at[0]), b = unpack_half2(w.at[1]), c = unpack_half2(w.at[2]), d = unpack_half2(w.at[3]);
    low = {a.x, a.y, b.x, b.y};
    high = {c.x, c.y, d.x, d.y};
  }
}

// Probabilities times a value scale are halves; this keeps small scales clear of the subnormal range.
inline constexpr float weight_gain = 16.f;

// Slots that hold no token may contain anything, NaN included. Sets those of `tiles` tiles in shared memory from token
// `valid` on to what changes no sum: values 0 or, where values are finite codes, scales 0. Called by `size` threads.
template <class Tile>
__device__ void clear_tail(std::byte* tiles_at, int tiles, int valid, int rank, int size) {
  if constexpr (Tile::folded) {
    constexpr int entry_words = Tile::scale_halves / 2;
    for (int n = rank; n < tiles * tile_tokens * Tile::groups; n += size) {
      const int token = n / Tile::groups;
      if (token < valid) continue;
      auto* entry = reinterpret_cast<std::uint32_t*>(tiles_at + token / tile_tokens * Tile::bytes +
                                                     Tile::scale_place(token % tile_tokens, n % Tile::groups));
      for (int w = 0; w < entry_words; ++w) entry[w] = 0;
    }
  } else {
    for (int n = rank; n < tiles * Tile::words * 32; n += size) {
      const int tile = n / (Tile::words * 32), word = n / 32 % Tile::words, i = n % 4;
      const int token = tile * tile_tokens + 2 * i + word % 2 * 8;
      if (token + 1 < valid) continue;
      auto* at = reinterpret_cast<std::uint32_t*>(tiles_at + tile * Tile::bytes + Tile::part_bytes + Tile::word_offset(word, n % 32));
      *at = token < valid ? *at & 0xffffu : 0u;
    }
  }
}

// Packed kind: decodes tiles into those of a plain codec. Tokens from `valid` on become 0. Called by `size` threads.
template <class Codec, class PackedTile, class PlainTile, class T>
__device__ void expand_tiles(const std::byte* packed, std::byte* plain, int tiles, int valid, int rank, int size) {
  constexpr int group = Codec::group;
  for (int n = rank; n < tiles * tile_tokens * 2 * PackedTile::groups; n += size) {
    const int g = n % PackedTile::groups, part = n / PackedTile::groups % 2, token = n / (2 * PackedTile::groups);
    const int t = token % tile_tokens;
    Vec<float, group> values{};
    if (token < valid) {
      typename Codec::Packed stored;
      memcpy(&stored, packed + token / tile_tokens * PackedTile::bytes + PackedTile::packed_place(part, t, g), sizeof stored);
      values = Codec{}.decode(stored);
    }
    std::byte* tile = plain + token / tile_tokens * PlainTile::bytes;
#pragma unroll
    for (int d = 0; d < group; ++d) {
      const int u = g * group + d;
      *reinterpret_cast<T*>(tile + (part ? PlainTile::value_unit(t, u) : PlainTile::key_unit(t, u))) = static_cast<T>(values[d]);
    }
  }
}

}  // namespace lmkit::kernels::cuda
