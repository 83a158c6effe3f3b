// SPDX-License-Identifier: Apache-2.0
//
// gemm_tile.hpp for AVX-512 with VNNI: a register is a tile's 16 rows. One vpdpbusd multiplies 4 columns of 16 rows
// with 4 activations of a token, which come as a broadcast memory operand.
#pragma once

#include "../gemm_kernels.hpp"

#include <lmkit/base/half.hpp>

#include <immintrin.h>

#include <algorithm>
#include <type_traits>

namespace lmkit::kernels {
namespace {

constexpr int widest_quantised = 16;
constexpr int widest_float = 8;
constexpr int float_tiles = 2;

struct Out {
  float* y;
  std::int64_t stride;
  int rows;

  void store(int token, int tile, __m512 sums) const noexcept { _mm512_mask_storeu_ps(y + token * stride + 16 * tile, rows_of(tile), sums); }
  __m512 load(int token, int tile) const noexcept { return _mm512_maskz_loadu_ps(rows_of(tile), y + token * stride + 16 * tile); }

 private:
  __mmask16 rows_of(int tile) const noexcept { return static_cast<__mmask16>((1u << std::clamp(rows - 16 * tile, 0, 16)) - 1); }
};

inline __m512 load_16_halves(const std::byte* in) noexcept {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
}

// The 32 columns of a block as 8 registers of bytes, 4 columns each.
template <WeightFormat F>
inline void load_quants(const std::byte* in, __m512i (&quants)[8]) noexcept {
  for (int g = 0; g < (F == WeightFormat::q8_0 ? 8 : 4); ++g) {
    const __m512i raw = _mm512_loadu_si512(in + 64 * g);
    if constexpr (F == WeightFormat::q8_0) {
      quants[g] = raw;
    } else {
      const __m512i nibble = _mm512_set1_epi8(15);
      quants[g] = _mm512_and_si512(raw, nibble);
      quants[g + 4] = _mm512_and_si512(_mm512_srli_epi16(raw, 4), nibble);
    }
  }
}

// sum += quants * *activations. g++ 12 does not make the broadcast an operand by itself.
inline void add_dot(__m512i& sum, __m512i quants, const std::int32_t* activations) noexcept {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(quants), "m"(*activations));
}

template <WeightFormat F, int Tokens>
void quantised_tile(const std::byte* weights, std::int64_t blocks, const ActivationBlock* panel, int first, Out out) noexcept {
  constexpr bool has_minimum = F == WeightFormat::q4_1;
  constexpr int side = Tokens < 4 ? Tokens : 4;  // dot products side by side: one alone would wait for itself
  __m512 acc[Tokens] = {};
  const auto* high = reinterpret_cast<const std::int32_t*>(panel->high[first]);
  const auto* low = reinterpret_cast<const std::int32_t*>(panel->low[first]);
  const float* scale = panel->scale + first;
  const float* scaled_sum = panel->scaled_sum + first;
  const std::int32_t* start = (F == WeightFormat::q8_0 ? panel->minus_128_sums : panel->minus_8_sums) + first;
  constexpr std::int64_t step = sizeof(ActivationBlock) / 4;
  for (std::int64_t b = 0; b < blocks; ++b) {
    const __m512 d = load_16_halves(weights);
    const __m512 m = has_minimum ? load_16_halves(weights + 32) : __m512{};
    __m512i quants[8];
    load_quants<F>(weights + (has_minimum ? 64 : 32), quants);
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; t += side) {
      __m512i sums[side];
#pragma GCC unroll 4
      for (int i = 0; i < side; ++i) sums[i] = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g)
#pragma GCC unroll 4
        for (int i = 0; i < side; ++i) add_dot(sums[i], quants[g], high + 8 * (t + i) + g);
#pragma GCC unroll 4
      for (int i = 0; i < side; ++i) {
        sums[i] = _mm512_slli_epi32(sums[i], 7);
        if (!has_minimum) sums[i] = _mm512_add_epi32(sums[i], _mm512_set1_epi32(start[t + i]));
      }
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g)
#pragma GCC unroll 4
        for (int i = 0; i < side; ++i) add_dot(sums[i], quants[g], low + 8 * (t + i) + g);
#pragma GCC unroll 4
      for (int i = 0; i < side; ++i) {
        acc[t + i] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), d), _mm512_set1_ps(scale[t + i]), acc[t + i]);
        if (has_minimum) acc[t + i] = _mm512_fmadd_ps(m, _mm512_set1_ps(scaled_sum[t + i]), acc[t + i]);
      }
    }
    weights += 16 * block_of(F).bytes;
    high += step;
    low += step;
    scale += step;
    scaled_sum += step;
    start += step;
  }
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t) out.store(t, 0, acc[t]);
}

template <class T>
constexpr int columns_together = std::is_same_v<T, BFloat16> ? 2 : 1;

// The next columns of 16 rows.
template <class T>
inline void load_columns(const std::byte* in, __m512 (&columns)[columns_together<T>]) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    columns[0] = _mm512_loadu_ps(in);
  } else if constexpr (std::is_same_v<T, Half>) {
    columns[0] = load_16_halves(in);
  } else {
    const __m512i pairs = _mm512_loadu_si512(in);
    columns[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    columns[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  }
}

template <class T, int Tokens, int Tiles>
void float_tile(const std::byte* weights, std::int64_t cols, const float* x, std::int64_t x_stride, Out out) noexcept {
  constexpr int together = columns_together<T>;
  constexpr std::int64_t step_bytes = 16 * together * sizeof(T);
  const std::int64_t tile_bytes = gemm_tile_bytes(together == 2 ? WeightFormat::bf16 : sizeof(T) == 2 ? WeightFormat::f16 : WeightFormat::f32, cols);
  __m512 acc[Tokens][Tiles] = {};
  const auto add_columns = [&](std::int64_t c, int count) __attribute__((always_inline)) {
    __m512 w[Tiles][together];
    for (int i = 0; i < Tiles; ++i) load_columns<T>(weights + i * tile_bytes + c / together * step_bytes, w[i]);
#pragma GCC unroll 2
    for (int k = 0; k < count; ++k)
#pragma GCC unroll 16
      for (int t = 0; t < Tokens; ++t) {
        const __m512 value = _mm512_set1_ps(x[t * x_stride + c + k]);
        for (int i = 0; i < Tiles; ++i) acc[t][i] = _mm512_fmadd_ps(w[i][k], value, acc[t][i]);
      }
  };
  std::int64_t c = 0;
  for (; c + together <= cols; c += together) add_columns(c, together);
  if (c < cols) add_columns(c, 1);
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t)
    for (int i = 0; i < Tiles; ++i) out.store(t, i, acc[t][i]);
}

}  // namespace
}  // namespace lmkit::kernels
