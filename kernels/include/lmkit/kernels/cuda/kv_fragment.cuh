// SPDX-License-Identifier: Apache-2.0
//
// From the words of a tile to tensor-core fragments, and what the unpacking adds to every code.
//
// A code becomes a half by putting its bits under a fixed exponent: 0x6400 | c is 1024 + c, and 0x5400 with the code four
// bits higher is 64 + c. Nothing is subtracted from an element; the constant leaves the dot product like the codec's bias:
//     sum_d q_d (offset_d + c_d) = q.c + sum_d offset_d q_d          one number a query
//     sum_t w_t (offset + c_t)   = w.c + offset sum_t w_t            one number a query and tile
// so 8 codes cost 5 instructions at 4 bits (4 LOP3, a shift) and 4 codes cost 2 (PRMT) at 8 bits.
#pragma once

#include <lmkit/kernels/cuda/kv_tile.cuh>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

struct Fragment {
  std::uint32_t a0, a1, a2, a3;
};

// (x & mask) | magic
__device__ __forceinline__ std::uint32_t under_exponent(std::uint32_t x, std::uint32_t mask, std::uint32_t magic) {
  std::uint32_t y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "r"(mask), "r"(magic));
  return y;
}

template <class Tile>
struct Unpack {
  static constexpr int bits = Tile::bits();
  // Added to codes of even and of odd dimensions; a symmetric codec's zero point is part of it.
  static constexpr float zero = Tile::folded && Tile::symmetric() ? 1 << (bits - 1) : 0;
  static constexpr float even_offset = bits == 16 ? 0.f : 1024.f;
  static constexpr float odd_offset = bits == 16 ? 0.f : bits == 4 ? 64.f : 1024.f;

  // words: the fragment_words words of one fragment
  __device__ __forceinline__ static Fragment keys(const std::uint32_t* words) {
    if constexpr (bits == 4) {
      const std::uint32_t x = words[0], y = x >> 8;  // token g; token g + 8
      return {under_exponent(x, 0x000f000fu, 0x64006400u), under_exponent(y, 0x000f000fu, 0x64006400u),
              under_exponent(x, 0x00f000f0u, 0x54005400u), under_exponent(y, 0x00f000f0u, 0x54005400u)};
    } else if constexpr (bits == 8) {
      return {__byte_perm(words[0], 0x64646464u, 0x4140), __byte_perm(words[1], 0x64646464u, 0x4140),
              __byte_perm(words[0], 0x64646464u, 0x4342), __byte_perm(words[1], 0x64646464u, 0x4342)};
    } else {
      return {words[0], words[1], words[2], words[3]};
    }
  }

  __device__ __forceinline__ static Fragment values(const std::uint32_t* words) {
    if constexpr (bits == 4) {
      const std::uint32_t x = words[0], y = x >> 8;  // tokens 2i 2i+1; tokens 2i+8 2i+9
      return {under_exponent(x, 0x000f000fu, 0x64006400u), under_exponent(x, 0x00f000f0u, 0x54005400u),
              under_exponent(y, 0x000f000fu, 0x64006400u), under_exponent(y, 0x00f000f0u, 0x54005400u)};
    } else if constexpr (bits == 8) {
      return {__byte_perm(words[0], 0x64646464u, 0x4140), __byte_perm(words[1], 0x64646464u, 0x4140),
              __byte_perm(words[0], 0x64646464u, 0x4342), __byte_perm(words[1], 0x64646464u, 0x4342)};
    } else {
      return {words[0], words[1], words[2], words[3]};
    }
  }

  // Of the four queries' dimensions 4i .. 4i+3: which belong to columns 2i 2i+1, the rest to 2i+8 2i+9.
  template <class T>
  __device__ __forceinline__ static void query(const float (&x)[4], std::uint32_t& low, std::uint32_t& high) {
    constexpr bool interleaved = bits == 4;
    low = pack2<T>(x[0], interleaved ? x[2] : x[1]);
    high = pack2<T>(interleaved ? x[1] : x[2], x[3]);
  }
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

// scale and bias of keys and values of one token
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
      const int token = tile * tile_tokens + 2 * i + word % 4 / 2 * 8;
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
