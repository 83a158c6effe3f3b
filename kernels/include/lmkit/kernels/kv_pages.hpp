// SPDX-License-Identifier: Apache-2.0
//
// What one key/value head's part of a block holds. Three kinds, all with keys dimension-major (lanes are tokens, so a
// score needs no horizontal sum) and values token-major (lanes are dimensions):
//
//   HalfPages          keys (head_dim, 64) and values (64, head_dim) in half precision
//   FoldedPages<C>     the same with 8- or 4-bit codes, then strips of 64 scales and biases for keys and for values;
//                      for a FoldableKvCodec whose group is the head. Attention works on the codes.
//   PackedPages<C>     for any KvCodec: the codec's Packed values (2, 64, head_dim / group). Attention decodes a block.
//
// A pages type says how large a part is, stores a token, and gives attention its rows. Rows of U4 keep value j with value
// j + n/2, so values are "in storage order": dimension d of an n-part row lies at storage_index(d).
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/concepts/kv_codec.hpp>
#include <lmkit/kernels/kv.hpp>
#include <lmkit/kernels/kv_simd.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {

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

struct HalfPages {
  using Element = F16;
  static constexpr bool direct = true;  // attention can read Elements from the page
  static constexpr bool folded = false;

  LMKIT_HD static std::int64_t head_bytes(int head_dim) noexcept {
    return round_up(4 * kv_block_tokens * head_dim + (head_dim % 16 ? kv_overrun : 0), 64);
  }
  LMKIT_HD static const std::byte* keys(const std::byte* head, int) noexcept { return head; }
  LMKIT_HD static const std::byte* values(const std::byte* head, int head_dim) noexcept { return head + 2 * kv_block_tokens * head_dim; }

  LMKIT_HD static Half clamped(float x) noexcept { return to_half(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x); }

  // k, v: (head_dim)
  LMKIT_HD static void store(std::byte* head, int slot, int head_dim, const float* k, const float* v) noexcept {
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

template <class Codec>
struct PagesOf;
template <>
struct PagesOf<HalfCodec> {
  using type = HalfPages;
};

}  // namespace lmkit::kernels
