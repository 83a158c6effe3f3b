// SPDX-License-Identifier: Apache-2.0
//
// KvCodec: how a run of values of one key or value head becomes bytes and comes back.
//
// The author writes one plain struct; the kernels of the SDK are instantiated with it, on the CPU and on a GPU, and
// inline it. A codec whose values are an affine function of small integers is Foldable: its scale never touches an
// element, because scale and bias of a token leave the dot product:
//     q . k_t = scale_t * (q . code_t) + bias_t * sum(q)      sum_t p_t v_t = sum_t (p_t scale_t) code_t + (sum_t p_t bias_t) 1
#pragma once

#include <lmkit/base/half.hpp>
#include <lmkit/base/vec.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace lmkit {

// --- atoms -----------------------------------------------------------------------------------------------------

template <class C>
concept HasGroup = requires {
  { C::group } -> std::convertible_to<int>;  // values that share one Packed; divides head_dim
} && (C::group > 0);

template <class C>
concept HasPacked = std::is_trivially_copyable_v<typename C::Packed> && std::is_trivially_default_constructible_v<typename C::Packed>;

template <class C>
concept Encodes = requires(const C codec, const Vec<float, C::group>& values) {
  { codec.encode(values) } noexcept -> std::same_as<typename C::Packed>;
};

template <class C>
concept Decodes = requires(const C codec, const typename C::Packed& packed) {
  { codec.decode(packed) } noexcept -> std::same_as<Vec<float, C::group>>;
};

// --- concepts ----------------------------------------------------------------------------------------------------

// encode and decode are marked LMKIT_HD; C is trivially copyable, so a launch can carry it.
template <class C>
concept KvCodec = std::is_trivially_copyable_v<C> && HasGroup<C> && HasPacked<C> && Encodes<C> && Decodes<C>;

// Packed is { uint8_t codes[group * bits / 8]; Half scale; } and, unless symmetric, { Half bias; }. Codes are unsigned;
// with 4 bits value 2i lies in the low nibble of byte i and value 2i + 1 in the high one.
//     value = scale * code + bias          symmetric: bias = -scale * 2^(bits-1)
template <class C>
concept FoldableKvCodec = KvCodec<C> && (C::bits == 4 || C::bits == 8) && requires(const typename C::Packed& packed) {
  requires std::same_as<decltype(C::symmetric), const bool>;
  requires std::same_as<std::remove_cvref_t<decltype(packed.codes)>, std::uint8_t[C::group * C::bits / 8]>;
  requires std::same_as<std::remove_cvref_t<decltype(packed.scale)>, Half>;
  requires C::symmetric || std::same_as<std::remove_cvref_t<decltype(packed.bias)>, Half>;
};

// --- what is wrong with a codec --------------------------------------------------------------------------------------

// static_assert(check_kv_codec<C>()) fails with the first thing that C lacks, in one message.
template <class C>
constexpr bool check_kv_codec() noexcept {
  if constexpr (!std::is_trivially_copyable_v<C>)
    static_assert(!sizeof(C), "a KvCodec is trivially copyable, so that a launch can carry it");
  else if constexpr (!HasGroup<C>)
    static_assert(!sizeof(C), "a KvCodec has `static constexpr int group`: how many values share one Packed, at least 1");
  else if constexpr (!HasPacked<C>)
    static_assert(!sizeof(C), "a KvCodec has a plain struct `Packed`: trivially copyable and trivially default-constructible");
  else if constexpr (!Encodes<C>)
    static_assert(!sizeof(C), "a KvCodec has `LMKIT_HD Packed encode(const Vec<float, group>&) const noexcept`");
  else if constexpr (!Decodes<C>)
    static_assert(!sizeof(C), "a KvCodec has `LMKIT_HD Vec<float, group> decode(const Packed&) const noexcept`");
  else if constexpr (requires { C::bits; C::symmetric; } && !FoldableKvCodec<C>)
    static_assert(!sizeof(C), "a codec with `bits` and `symmetric` is foldable: bits is 4 or 8, symmetric a constexpr bool, Packed holds "
                              "uint8_t codes[group * bits / 8], Half scale and, unless symmetric, Half bias");
  return true;
}

}  // namespace lmkit
