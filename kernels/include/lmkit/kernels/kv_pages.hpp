// SPDX-License-Identifier: Apache-2.0
//
// What one key/value head's part of a block holds. Three kinds, all with keys dimension-major (lanes are tokens, so a
// score needs no horizontal sum) and values token-major (lanes are dimensions):
//
//   HalfPages          keys (head_dim, 64) and values (64, head_dim) in half precision
//   FoldedPages<K, V>  the same with 8- or 4-bit codes, then strips of 64 scales and biases for keys and for values, then
//                      the mean key when centred; for FoldableKvCodecs whose group is the head. Attention works on the codes.
//   PackedPages<C>     for any KvCodec: the codec's Packed values (2, 64, head_dim / group). Attention decodes a block.
//
// A pages type says how large a part is, stores a token, and gives attention its rows. Rows of U4 keep value j with value
// j + n/2, so values are "in storage order": dimension d of an n-part row lies at storage_index(d).
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/concepts/kv_codec.hpp>
#include <lmkit/kernels/kv.hpp>
#include <lmkit/kernels/kv_centre.hpp>
#include <lmkit/kernels/kv_simd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace lmkit::kernels {
namespace {

LMKIT_HD constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) noexcept { return (n + step - 1) / step * step; }

// Floats of a row of values in storage order: each part padded to whole registers of any instruction set.
template <class Element>
LMKIT_HD constexpr int storage_width(int head_dim) noexcept {
  return static_cast<int>(Element::parts * round_up(head_dim / Element::parts, 16));
}

template <class Element>
LMKIT_HD constexpr int storage_index(int d, int head_dim) noexcept {
  const int half = head_dim / Element::parts;
  return d < half ? d : static_cast<int>(round_up(half, 16)) + d - half;
}

// Reading a register may run past the last row of values by less than this.
inline constexpr int kv_overrun = 64;

// rows of n Elements as floats in storage order, `width` apart
template <class Isa, class Element>
LMKIT_HD void expand_rows(const std::byte* from, int rows, int n, float* to, int width) noexcept {
  using V = Simd<Isa>;
  const int part = width / Element::parts;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < part; i += V::lanes) {
      typename V::F x[Element::parts];
      Element::template load<V>(from + r * Element::row_bytes(n), i, x);
      for (int p = 0; p < Element::parts; ++p) V::store(to + r * width + p * part + i, x[p]);
    }
}

// Scales and biases of a block's tokens; 0 where a slot is empty.
struct KvScales {
  alignas(64) float k_scale[kv_block_tokens], k_bias[kv_block_tokens], v_scale[kv_block_tokens], v_bias[kv_block_tokens];
};

struct HalfPages {
  using Layout = HalfPages;
  using Element = F16;
  static constexpr bool direct = true;  // attention can read Elements from the page
  static constexpr bool folded = false;
  static constexpr bool centred = false;

  LMKIT_HD static std::int64_t head_bytes(int head_dim) noexcept {
    return round_up(4 * kv_block_tokens * head_dim + (head_dim % 16 ? kv_overrun : 0), 64);
  }
  LMKIT_HD static const std::byte* keys(const std::byte* head, int) noexcept { return head; }
  LMKIT_HD static const std::byte* values(const std::byte* head, int head_dim) noexcept { return head + 2 * kv_block_tokens * head_dim; }

  LMKIT_HD static Half clamped(float x) noexcept { return to_half(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x); }

  // k, v: (head_dim)
  template <class Isa>
  static void store(std::byte* head, int slot, int head_dim, const float* k, const float* v) noexcept {
    Half* keys = reinterpret_cast<Half*>(head);
    Half* values = keys + kv_block_tokens * head_dim + slot * head_dim;
    for (int d = 0; d < head_dim; ++d) keys[d * kv_block_tokens + slot] = clamped(k[d]);
    for (int d = 0; d < head_dim; ++d) values[d] = clamped(v[d]);
  }

  template <class Isa>
  LMKIT_HD static void expand(const std::byte* head, int head_dim, int filled, float* to_keys, float* to_values, int width) noexcept {
    expand_rows<Isa, F16>(keys(head, head_dim), head_dim, kv_block_tokens, to_keys, kv_block_tokens);
    expand_rows<Isa, F16>(values(head, head_dim), filled, head_dim, to_values, width);
  }
};

// For FoldableKvCodecs whose group is the head: codes, then strips of 64 halves: key scales, key biases, value scales,
// value biases (no biases when symmetric), then the mean key when centred. What attention needs to know of it:
template <int Bits, bool SymmetricKeys, bool SymmetricValues, bool Centred>
struct FoldedLayout {
  using Element = std::conditional_t<Bits == 4, U4, U8>;
  static constexpr bool direct = true;
  static constexpr bool folded = true;
  static constexpr bool centred = Centred;
  static constexpr int strip = kv_block_tokens * 2;  // bytes
  static constexpr int key_strips = SymmetricKeys ? 1 : 2;
  static constexpr int value_strips = SymmetricValues ? 1 : 2;

  // of the keys' codes, and of the values'
  LMKIT_HD static constexpr std::int64_t code_bytes(int head_dim) noexcept { return kv_block_tokens * head_dim * Bits / 8; }
  LMKIT_HD static constexpr std::int64_t centre_offset(int head_dim) noexcept {
    return 2 * code_bytes(head_dim) + (key_strips + value_strips) * strip;
  }
  LMKIT_HD static std::int64_t head_bytes(int head_dim) noexcept {
    return round_up(centre_offset(head_dim) + (Centred ? centre_bytes(head_dim) : 0), 64);
  }
  LMKIT_HD static const std::byte* keys(const std::byte* head, int) noexcept { return head; }
  LMKIT_HD static const std::byte* values(const std::byte* head, int head_dim) noexcept { return head + code_bytes(head_dim); }

  template <class Isa>
  LMKIT_HD static void expand(const std::byte* head, int head_dim, int filled, float* to_keys, float* to_values, int width) noexcept {
    expand_rows<Isa, Element>(keys(head, head_dim), head_dim, kv_block_tokens, to_keys, kv_block_tokens);
    expand_rows<Isa, Element>(values(head, head_dim), filled, head_dim, to_values, width);
  }

  template <class Isa>
  LMKIT_HD static void load_scales(const std::byte* head, int head_dim, int filled, KvScales& scales) noexcept {
    const std::byte* from = head + 2 * code_bytes(head_dim);
    load_strips<Isa, SymmetricKeys>(from, filled, scales.k_scale, scales.k_bias);
    load_strips<Isa, SymmetricValues>(from + key_strips * strip, filled, scales.v_scale, scales.v_bias);
  }

 private:
  template <class Isa, bool Symmetric>
  LMKIT_HD static void load_strips(const std::byte* from, int filled, float* scale, float* bias) noexcept {
    using V = Simd<Isa>;
    for (int t = 0; t < kv_block_tokens; t += V::lanes) {
      const auto present = V::iota() + t < filled;
      const typename V::F s = present ? V::load_half(from + 2 * t) : typename V::F{};
      V::store(scale + t, s);
      if constexpr (Symmetric) V::store(bias + t, s * V::set1(-static_cast<float>(1 << (Bits - 1))));
      else V::store(bias + t, present ? V::load_half(from + strip + 2 * t) : typename V::F{});
    }
  }
};

// And how append fills it.
template <class Keys, class Values, bool Centred>
struct FoldedPages : FoldedLayout<Keys::bits, Keys::symmetric, Values::symmetric, Centred> {
  using Layout = FoldedLayout<Keys::bits, Keys::symmetric, Values::symmetric, Centred>;
  static constexpr int dim = Keys::group;
  static_assert(Keys::bits == Values::bits && Keys::group == Values::group, "keys and values of one page have the same bits and group");
  static_assert(!Centred || dim % centre_step == 0, "centred keys need a head_dim of whole vectors");

  template <class Isa>
  static void store(std::byte* head, int slot, int, const float* k, const float* v) noexcept {
    constexpr int bytes = Layout::code_bytes(dim);
    std::uint8_t code[dim];
    std::uint8_t* to = reinterpret_cast<std::uint8_t*>(head);
    encode<Isa, Keys>(k, code, head + 2 * bytes, slot);
    if constexpr (Keys::bits == 8) {
      for (int d = 0; d < dim; ++d) to[d * kv_block_tokens + slot] = code[d];
    } else {
      constexpr int half = kv_block_tokens / 2;
      const int shift = slot < half ? 0 : 4;
      for (int d = 0; d < dim; ++d) {
        std::uint8_t& byte = to[d * half + slot % half];
        byte = static_cast<std::uint8_t>((byte & (0xf0 >> shift)) | code[d] << shift);
      }
    }
    to += bytes + slot * bytes / kv_block_tokens;
    encode<Isa, Values>(v, code, head + 2 * bytes + Layout::key_strips * Layout::strip, slot);
    if constexpr (Keys::bits == 8)
      for (int d = 0; d < dim; ++d) to[d] = code[d];
    else
      for (int d = 0; d < dim / 2; ++d) to[d] = static_cast<std::uint8_t>(code[d] | code[d + dim / 2] << 4);
  }

 private:
  template <class Isa, class Codec>
  [[gnu::noinline]] static void encode(const float* x, std::uint8_t* code, std::byte* scales, int slot) noexcept {
    Vec<float, dim> values;
    for (int d = 0; d < dim; ++d) values[d] = x[d];
    const typename Codec::Packed packed = Codec{}.encode(values);
    for (int d = 0; d < dim; ++d) {
      if constexpr (Codec::bits == 8) code[d] = packed.codes[d];
      else code[d] = packed.codes[d / 2] >> 4 * (d % 2) & 15;
    }
    Half* to = reinterpret_cast<Half*>(scales) + slot;
    to[0] = packed.scale;
    if constexpr (!Codec::symmetric) to[kv_block_tokens] = packed.bias;
  }
};

// For any KvCodec: Packed keys (64, groups), then Packed values.
template <class Codec>
struct PackedPages {
  using Layout = PackedPages;
  using Element = F32;
  using Packed = typename Codec::Packed;
  static constexpr bool direct = false;
  static constexpr bool folded = false;
  static constexpr bool centred = false;

  LMKIT_HD static std::int64_t head_bytes(int head_dim) noexcept {
    return round_up(std::int64_t{2 * kv_block_tokens} * (head_dim / Codec::group) * static_cast<std::int64_t>(sizeof(Packed)), 64);
  }

  template <class Isa>
  static void store(std::byte* head, int slot, int head_dim, const float* k, const float* v) noexcept {
    encode<Isa>(head, slot, head_dim, k);
    encode<Isa>(head, kv_block_tokens + slot, head_dim, v);
  }

  template <class Isa>
  LMKIT_HD static void expand(const std::byte* head, int head_dim, int filled, float* to_keys, float* to_values, int width) noexcept {
    for (int slot = 0; slot < filled; ++slot) {
      decode(head, slot, head_dim, to_keys + slot, kv_block_tokens);
      decode(head, kv_block_tokens + slot, head_dim, to_values + slot * width, 1);
    }
  }

 private:
  template <class Isa>
  [[gnu::noinline]] static void encode(std::byte* head, int row, int head_dim, const float* x) noexcept {
    const int groups = head_dim / Codec::group;
    for (int g = 0; g < groups; ++g) {
      Vec<float, Codec::group> values;
      for (int i = 0; i < Codec::group; ++i) values[i] = x[g * Codec::group + i];
      const Packed packed = Codec{}.encode(values);
      std::memcpy(head + (row * groups + g) * sizeof(Packed), &packed, sizeof packed);
    }
  }

  LMKIT_HD static void decode(const std::byte* head, int row, int head_dim, float* to, int step) noexcept {
    const int groups = head_dim / Codec::group;
    for (int g = 0; g < groups; ++g) {
      Packed packed;
      std::memcpy(&packed, head + (row * groups + g) * sizeof(Packed), sizeof packed);
      const Vec<float, Codec::group> values = Codec{}.decode(packed);
      for (int i = 0; i < Codec::group; ++i) to[(g * Codec::group + i) * step] = values[i];
    }
  }
};

}  // namespace
}  // namespace lmkit::kernels
