// SPDX-License-Identifier: Apache-2.0
//
// KvTile<Codec, head_dim>: how 16 tokens of one key/value head lie in a page, in the order in which a tensor core wants
// them, so that a lane's share of a fragment is consecutive bytes and nothing is shuffled or transposed on the way.
//
//     block part of a layer = (kv_heads) of (block_tokens / 16) tiles, then the mean of the keys if these are centred
//     tile = keys | values | scales
//
// Keys are the A operand of scores^T = keys queries^T (16 tokens x 16 dimensions a fragment), values that of
// out^T = values^T probabilities^T (16 dimensions x 16 tokens). Read as B operands they serve prefill, where queries are A:
// registers (a0, a2) are B for the fragment's first eight rows, (a1, a3) for its last eight. Which dimension a row or
// column stands for is free, as long as queries and outputs agree; the order below keeps the bytes of a codec whole:
//
//   fragment position           keys, columns 2i 2i+1 2i+8 2i+9           values, rows g and g+8
//   4 bits, word = fragment     dimensions 4i 4i+2 4i+1 4i+3              dimensions 2g and 2g+1
//   8 bits, 2 words             4i .. 4i+3                                2g and 2g+1
//   16 bits, 4 words            4i .. 4i+3                                2g and 2g+1
//
// The four words of a 16-bit fragment are a0 a2 a1 a3, so that both B operands are register pairs as they are loaded; decode
// pays a few moves for it.
//
// Three kinds: folded (FoldableKvCodec with a group that is a multiple of 16), plain (16-bit floats), packed (any other
// KvCodec: its Packed values in token order, expanded to plain fragments in shared memory by the kernels).
#pragma once

#include <lmkit/concepts/kv_codec.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels::cuda {

inline constexpr int tile_tokens = 16;

// Keys and values as they come, in the activations' own 16-bit type.
template <class Float16>
struct Plain16 {
  using Element = Float16;
  static constexpr int group = 8;
  struct Packed {
    Float16 values[group];
  };
  LMKIT_HD Packed encode(const Vec<float, group>& values) const noexcept {
    Packed packed;
    for (int i = 0; i < group; ++i) packed.values[i] = round(values[i], Float16{});
    return packed;
  }
  LMKIT_HD Vec<float, group> decode(const Packed& packed) const noexcept {
    Vec<float, group> values;
    for (int i = 0; i < group; ++i) values[i] = to_float(packed.values[i]);
    return values;
  }

 private:
  LMKIT_HD static Half round(float x, Half) noexcept { return to_half(x); }
  LMKIT_HD static BFloat16 round(float x, BFloat16) noexcept { return to_bfloat16(x); }
};

template <class C>
concept PlainKvCodec = KvCodec<C> && requires { typename C::Element; } && sizeof(typename C::Packed) == 2 * C::group;

template <class C>
concept FragmentFoldable = FoldableKvCodec<C> && C::group % 16 == 0;

// The mean of a block's keys where these are centred (kv_centre.cuh): head_dim halves in the order in which a lane's part of a
// fragment of queries wants them at 4 bits. Odd dimensions are stored 16 times as large, as queries hold them 16 times smaller.
template <int head_dim>
struct MeanStrip {
  static constexpr int copied = 2 * head_dim, bytes = (copied + 63) / 64 * 64;
  LMKIT_HD static constexpr int place(int d) noexcept { return d / 4 * 8 + d % 2 * 4 + d % 4 / 2 * 2; }  // in bytes
  LMKIT_HD static constexpr float gain(int d) noexcept { return d % 2 ? 16.f : 1.f; }
  static constexpr float most = 4094.f;  // a mean is held to what fits a half 16 times as large
};

enum class TileKind { folded, plain, packed };

// Where an element's bytes are: the word of the fragment run and the byte in it.
struct FragmentPlace {
  int word;
  int lane;
  int byte;
};

template <KvCodec Codec, int head_dim>
struct KvTile {
  static_assert(head_dim % 16 == 0 && head_dim % Codec::group == 0, "the codec's group must divide head_dim, and 16 too");

  static constexpr TileKind kind = FragmentFoldable<Codec> ? TileKind::folded : PlainKvCodec<Codec> ? TileKind::plain : TileKind::packed;
  static constexpr bool folded = kind == TileKind::folded;
  static constexpr bool plain = kind == TileKind::plain;
  static constexpr int groups = head_dim / Codec::group;

  static constexpr int bits() {
    if constexpr (folded) return Codec::bits;
    return 16;
  }
  static constexpr bool symmetric() {
    if constexpr (folded) return Codec::symmetric;
    return true;
  }

  // Keys may be stored as differences from the mean of the block before; whether they are is said at run time.
  static constexpr bool may_centre = folded && bits() == 4;
  using Mean = MeanStrip<head_dim>;
  static constexpr int mean_bytes = may_centre ? Mean::bytes : 0;

  // Folded and plain: a fragment is `fragment_words` words of a lane; `run` of them are consecutive, read by one load.
  static constexpr int fragment_words = bits() / 4;
  static constexpr int words = head_dim / 16 * fragment_words;  // of a lane, keys or values
  static constexpr int run = words % 4 == 0 ? 4 : words % 2 == 0 ? 2 : 1;

  // scale and bias of keys, then of values, of token g and of token g + 8, per group and g: one load a lane
  static constexpr int scale_halves = symmetric() ? 2 : 4;
  static constexpr int scale_bytes = 2 * 2 * scale_halves;

  static constexpr int round16(int n) { return (n + 15) / 16 * 16; }
  static constexpr int part_bytes = kind == TileKind::packed ? round16(tile_tokens * groups * static_cast<int>(sizeof(typename Codec::Packed)))
                                                             : tile_tokens * head_dim * bits() / 8;
  static constexpr int scales_at = 2 * part_bytes;
  static constexpr int bytes = (scales_at + (folded ? 8 * groups * scale_bytes : 0) + 63) / 64 * 64;

  LMKIT_HD static constexpr int word_offset(int word, int lane) noexcept { return ((word / run * 32 + lane) * run + word % run) * 4; }
  LMKIT_HD static constexpr int offset(FragmentPlace place) noexcept { return word_offset(place.word, place.lane) + place.byte; }

  // The smallest unit that belongs to one token: a byte of codes (two 4-bit values), a 16-bit float. Unit u of token t.
  static constexpr int unit_bytes = bits() == 16 ? 2 : 1;
  static constexpr int units = head_dim * bits() / 8 / unit_bytes;

  LMKIT_HD static constexpr int key_unit(int t, int u) noexcept {
    const int g = t % 8, high = t / 8;
    if constexpr (bits() == 4) return offset({u / 8, g * 4 + u % 8 / 2, u % 2 * 2 + high});
    if constexpr (bits() == 8) return offset({u / 16 * 2 + high, g * 4 + u % 16 / 4, u % 4});
    return offset({u / 16 * 4 + 2 * high + u % 4 / 2, g * 4 + u % 16 / 4, u % 2 * 2});
  }
  LMKIT_HD static constexpr int value_unit(int t, int u) noexcept {
    const int i = t % 8 / 2, odd = t % 2, high = t / 8;
    if constexpr (bits() == 4) return part_bytes + offset({u / 8, u % 8 * 4 + i, odd * 2 + high});
    if constexpr (bits() == 8) return part_bytes + offset({u / 16 * 2 + u % 2, u % 16 / 2 * 4 + i, odd + 2 * high});
    return part_bytes + offset({u / 16 * 4 + 2 * (u % 2) + high, u % 16 / 2 * 4 + i, odd * 2});
  }
  // scale and, unless symmetric, bias of token t's keys; those of the values follow
  LMKIT_HD static constexpr int scale_place(int t, int group) noexcept {
    return scales_at + (group * 8 + t % 8) * scale_bytes + t / 8 * (2 * scale_halves);
  }
  // packed kind: part 0 keys, 1 values
  LMKIT_HD static constexpr int packed_place(int part, int t, int group) noexcept {
    return part * part_bytes + (t * groups + group) * static_cast<int>(sizeof(typename Codec::Packed));
  }
};

}  // namespace lmkit::kernels::cuda
