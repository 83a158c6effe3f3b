// SPDX-License-Identifier: Apache-2.0
//
// gemm_tile.hpp for AVX2: a register is half a tile, 8 rows. vpmaddubsw adds pairs of u8 x s8 products in 16 bits:
//   4-bit weights: 8 such pair sums of at most 2 * 15 * 127 still fit, so a block is widened to 32 bits once;
//   8-bit weights: |w| as the unsigned side and a with w's sign keep one pair sum within 2 * 128 * 127 < 2^15.
#pragma once

#include "../gemm_kernels.hpp"

#include <lmkit/base/half.hpp>

#include <immintrin.h>

#include <cstring>
#include <type_traits>

namespace lmkit::kernels {
namespace {

constexpr int widest_quantised = 4;
constexpr int widest_float = 4;
constexpr int float_tiles = 1;

struct Out {
  float* y;
  std::int64_t stride;
  int rows;

  void store(int token, const __m256 (&sums)[2]) const noexcept {
    float* to = y + token * stride;
    if (rows >= 16) {
      _mm256_storeu_ps(to, sums[0]);
      _mm256_storeu_ps(to + 8, sums[1]);
    } else {
      std::memcpy(to, sums, sizeof(float) * static_cast<std::size_t>(rows));
    }
  }
};

inline __m256 load_8_halves(const std::byte* in) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
}

inline __m256i load_32_bytes(const std::byte* in) noexcept { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)); }

inline __m256i broadcast(const std::int8_t* four) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, four, sizeof bits);
  return _mm256_set1_epi32(bits);
}

// The integer dot products of 8 rows of a block with the activations of `Tokens` tokens. Unrolled over g, g++ 12 would
// hoist every broadcast and spill.
template <WeightFormat F, int Tokens>
inline void block_sums(const std::byte* quants, const std::int8_t* a, __m256i (&sums)[Tokens]) noexcept {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int t = 0; t < Tokens; ++t) sums[t] = _mm256_setzero_si256();
  if constexpr (F == WeightFormat::q8_0) {
#pragma GCC unroll 1
    for (int g = 0; g < 8; ++g) {
      const __m256i w = _mm256_xor_si256(load_32_bytes(quants + 64 * g), _mm256_set1_epi8(-128));  // stored + 128
      const __m256i size = _mm256_abs_epi8(w);
#pragma GCC unroll 4
      for (int t = 0; t < Tokens; ++t) {
        const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(broadcast(a + 32 * t + 4 * g), w));
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
      }
    }
  } else {
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 1
    for (int g = 0; g < 4; ++g) {
      const __m256i raw = load_32_bytes(quants + 64 * g);
      const __m256i low = _mm256_and_si256(raw, nibble), high = _mm256_and_si256(_mm256_srli_epi16(raw, 4), nibble);
#pragma GCC unroll 4
      for (int t = 0; t < Tokens; ++t) {
        const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, broadcast(a + 32 * t + 4 * g)),
                                               _mm256_maddubs_epi16(high, broadcast(a + 32 * t + 4 * g + 16)));
        sums[t] = _mm256_add_epi16(sums[t], pairs);
      }
    }
    for (int t = 0; t < Tokens; ++t) sums[t] = _mm256_madd_epi16(sums[t], ones);
  }
}

template <WeightFormat F, int Tokens>
void quantised_tile(const std::byte* weights, std::int64_t blocks, const ActivationBlock* panel, int first, Out out) noexcept {
  constexpr bool has_minimum = F == WeightFormat::q4_1;
  __m256 acc[Tokens][2] = {};
  for (std::int64_t b = 0; b < blocks; ++b, weights += 16 * block_of(F).bytes, ++panel)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const std::byte* quants = weights + (has_minimum ? 64 : 32) + 32 * half;
      __m256i high[Tokens], sums[Tokens];
      block_sums<F, Tokens>(quants, panel->high[first], high);
      block_sums<F, Tokens>(quants, panel->low[first], sums);
#pragma GCC unroll 4
      for (int t = 0; t < Tokens; ++t) {
        sums[t] = _mm256_add_epi32(sums[t], _mm256_slli_epi32(high[t], 7));
        if (F == WeightFormat::q4_0) sums[t] = _mm256_add_epi32(sums[t], _mm256_set1_epi32(panel->minus_8_sums[first + t]));
      }
      const __m256 d = load_8_halves(weights + 16 * half);
      const __m256 m = has_minimum ? load_8_halves(weights + 32 + 16 * half) : __m256{};
#pragma GCC unroll 4
      for (int t = 0; t < Tokens; ++t) {
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t]), d);
        acc[t][half] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(panel->scale[first + t]), acc[t][half]);
        if (has_minimum) acc[t][half] = _mm256_fmadd_ps(m, _mm256_set1_ps(panel->scaled_sum[first + t]), acc[t][half]);
      }
    }
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) out.store(t, acc[t]);
}

// Column c of rows 0 to 7 or 8 to 15.
template <class T>
inline __m256 load_8(const std::byte* weights, std::int64_t c, bool odd, int half) noexcept {
  const std::byte* in = weights + (16 * c + 8 * half) * static_cast<std::int64_t>(sizeof(T));
  if constexpr (std::is_same_v<T, float>)
    return _mm256_loadu_ps(reinterpret_cast<const float*>(in));
  else if constexpr (std::is_same_v<T, Half>)
    return load_8_halves(in);
  else {
    const __m256i pairs = load_32_bytes(weights + 64 * (c / 2) + 32 * half);
    return _mm256_castsi256_ps(odd ? _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))) : _mm256_slli_epi32(pairs, 16));
  }
}

template <class T, int Tokens, int Tiles>
void float_tile(const std::byte* weights, std::int64_t cols, const float* x, std::int64_t x_stride, Out out) noexcept {
  static_assert(Tiles == 1);
  __m256 acc[Tokens][2] = {};
  const auto add_column = [&](std::int64_t c, bool odd) __attribute__((always_inline)) {
    const __m256 low = load_8<T>(weights, c, odd, 0), high = load_8<T>(weights, c, odd, 1);
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) {
      const __m256 value = _mm256_set1_ps(x[t * x_stride + c]);
      acc[t][0] = _mm256_fmadd_ps(low, value, acc[t][0]);
      acc[t][1] = _mm256_fmadd_ps(high, value, acc[t][1]);
    }
  };
  std::int64_t c = 0;
  for (; c + 2 <= cols; c += 2) {
    add_column(c, false);
    add_column(c + 1, true);
  }
  if (c < cols) add_column(c, false);
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) out.store(t, acc[t]);
}

}  // namespace
}  // namespace lmkit::kernels
