// SPDX-License-Identifier: Apache-2.0
//
// gemm_tile.hpp for AVX2: a register is half a tile, 8 rows. Activations are whole 16-bit integers here, weights become such in
// registers, and vpmaddwd multiplies 2 columns of 8 rows and adds each pair in 32 bits. High and low bytes apart (vpmaddubsw, twice as
// many products an instruction) take as many instructions to multiply and add, and more around them.
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

  void store(int token, __m256 first, __m256 second) const noexcept {
    float* to = y + token * stride;
    if (rows >= 16) {
      _mm256_storeu_ps(to, first);
      _mm256_storeu_ps(to + 8, second);
    } else {
      const __m256 sums[2] = {first, second};
      std::memcpy(to, sums, sizeof(float) * static_cast<std::size_t>(rows));
    }
  }
};

inline __m256 load_8_halves(const std::byte* in) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
}

inline __m256i load_32_bytes(const std::byte* in) noexcept { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)); }

// Columns 4 j + 0, 1, 2, 3 become 4 j + 0, 2, 1, 3: a pair are the columns whose weights a mask of 16 bits leaves.
inline void pair_columns(std::int16_t (&values)[32]) noexcept {
  for (int half = 0; half < 2; ++half) {
    auto* at = reinterpret_cast<__m256i*>(values) + half;
    _mm256_store_si256(at, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(_mm256_load_si256(at), 0xd8), 0xd8));
  }
}

// Two activations for every row.
inline __m256i broadcast(const std::int16_t* two) noexcept {
  std::int32_t bits;
  std::memcpy(&bits, two, sizeof bits);
  return _mm256_set1_epi32(bits);
}

template <WeightFormat F>
constexpr int groups = F == WeightFormat::q8_0 ? 8 : 4;  // of 64 bytes in a block

// Of the bytes of a group, 4 a row, the columns that meet activations as pairs of 16 bits. Q8_0: part 0 is columns 0 and 2, part 1
// columns 1 and 3; Q4: parts 0 and 1 are those of the low nibbles, 2 and 3 of the high ones.
template <WeightFormat F>
inline __m256i pairs_of(__m256i raw, int part) noexcept {
  if constexpr (F == WeightFormat::q8_0) return part == 0 ? _mm256_and_si256(raw, _mm256_set1_epi16(255)) : _mm256_srli_epi16(raw, 8);
  if (part == 1) return _mm256_and_si256(_mm256_srli_epi16(raw, 8), _mm256_set1_epi16(15));
  if (part == 2) return _mm256_and_si256(_mm256_srli_epi16(raw, 4), _mm256_set1_epi16(15));
  return part == 0 ? _mm256_and_si256(raw, _mm256_set1_epi16(15)) : _mm256_srli_epi16(raw, 12);
}

// sums += weights * activations, pairs of columns. As intrinsics, g++ 12 moves all products in front of all sums and spills.
inline void add_dots(__m256i (&sums)[2], const __m256i (&weights)[2], __m256i activations) noexcept {
  __m256i product0, product1;
  asm("vpmaddwd %6, %4, %2\n\tvpmaddwd %6, %5, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
      : "+x"(sums[0]), "+x"(sums[1]), "=&x"(product0), "=&x"(product1)
      : "x"(weights[0]), "x"(weights[1]), "x"(activations));
}

template <WeightFormat F, int Tokens>
void quantised_tile(const std::byte* weights, std::int64_t blocks, const ActivationBlock* panel, int first, Out out) noexcept {
  constexpr bool has_minimum = F == WeightFormat::q4_1;
  constexpr int parts = F == WeightFormat::q8_0 ? 2 : 4;
  __m256 acc[Tokens][2] = {};
  for (std::int64_t b = 0; b < blocks; ++b, weights += 16 * block_of(F).bytes, ++panel) {
    if constexpr (Tokens < widest_quantised)  // bound by memory, where a Zen 3 does not look far enough ahead by itself
      for (int line = 0; line < 16 * block_of(F).bytes; line += 64) __builtin_prefetch(weights + 2048 + line);
    const std::byte* quants = weights + (has_minimum ? 64 : 32);
    __m256i sums[Tokens][2] = {};
#pragma GCC unroll 1
    for (int g = 0; g < groups<F>; ++g) {
      const __m256i raw[2] = {load_32_bytes(quants + 64 * g), load_32_bytes(quants + 64 * g + 32)};
      const std::int16_t* a = panel->values[first] + 4 * g;
#pragma GCC unroll 4
      for (int part = 0; part < parts; ++part) {
        const __m256i w[2] = {pairs_of<F>(raw[0], part), pairs_of<F>(raw[1], part)};
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; ++t) add_dots(sums[t], w, broadcast(a + 32 * t + 2 * (part & 1) + 16 * (part >> 1)));
      }
    }
    const std::int32_t* start = (F == WeightFormat::q8_0 ? panel->minus_128_sums : panel->minus_8_sums) + first;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256 d = load_8_halves(weights + 16 * half);
      const __m256 m = has_minimum ? load_8_halves(weights + 32 + 16 * half) : __m256{};
#pragma GCC unroll 4
      for (int t = 0; t < Tokens; ++t) {
        if (!has_minimum) sums[t][half] = _mm256_add_epi32(sums[t][half], _mm256_set1_epi32(start[t]));
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t][half]), d);
        acc[t][half] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(panel->scale[first + t]), acc[t][half]);
        if (has_minimum) acc[t][half] = _mm256_fmadd_ps(m, _mm256_set1_ps(panel->scaled_sum[first + t]), acc[t][half]);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) out.store(t, acc[t][0], acc[t][1]);
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
  for (int t = 0; t < Tokens; ++t) out.store(t, acc[t][0], acc[t][1]);
}

}  // namespace
}  // namespace lmkit::kernels
