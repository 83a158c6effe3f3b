// SPDX-License-Identifier: Apache-2.0
//
// gemm for AMX: 16 tokens x 16 rows x 32 columns in two instructions, one for the high and one for the low bytes of the
// activations; a panel's bytes are the A operand and an unpacked block of weights the B operand as they lie. The integers are
// then scaled and added up as in gemm_tile_avx512.hpp, in the same order, so both give the same bits. Scaling is what
// limits: 5 (Q4_1: 6) vector instructions for 512 products of 15 bits, where AVX-512 needs 16 more to multiply.
//
// BF16 weights meet activations as sums of three bf16, so that each product is exact; sums are floats and stay in their tiles over
// all columns. Every number of tokens goes this way, since no other order of adding gives these bits.
#pragma once

#include "amx_tiles.hpp"
#include "gemm_tile_avx512.hpp"

#ifndef LMKIT_TILES
#define LMKIT_TILES AmxTiles  // a test sets an emulation
#endif

namespace lmkit::kernels {
namespace {

constexpr std::int64_t run_blocks = 32;  // of a row of weights are unpacked at a time: 16 KiB, for L1
constexpr int fewest_for_tiles = 8;      // tokens of a panel; below, gemm_tile_avx512.hpp is as fast

using UnpackedBlock = std::int8_t[8][64];  // 4 columns x 16 rows each

template <WeightFormat F>
void unpack(const std::byte* weights, std::int64_t blocks, UnpackedBlock* out) noexcept {
  const __m512i offset = _mm512_set1_epi8(F == WeightFormat::q8_0 ? -128 : F == WeightFormat::q4_0 ? 8 : 0);
  for (std::int64_t b = 0; b < blocks; ++b, weights += 16 * block_of(F).bytes) {
    __m512i quants[8];
    load_quants<F>(weights + (F == WeightFormat::q4_1 ? 64 : 32), quants);
    for (int g = 0; g < 8; ++g) _mm512_store_si512(out[b][g], _mm512_sub_epi8(quants[g], offset));
  }
}

// Tiles: A operands; B operands and pairs of sums, two in turn.
constexpr int high_bytes = 0, low_bytes = 1, first_quants = 2, first_sums = 4;

inline TileShapes tile_shapes() noexcept {
  TileShapes shapes;
  const auto set = [&](int tile, std::uint8_t rows, std::uint16_t row_bytes) {
    shapes.rows[tile] = rows;
    shapes.row_bytes[tile] = row_bytes;
  };
  set(high_bytes, 16, 32);
  set(low_bytes, 16, 32);
  set(first_quants, 8, 64);
  set(first_quants + 1, 8, 64);
  for (int tile = first_sums; tile < first_sums + 4; ++tile) set(tile, 16, 64);
  return shapes;
}

struct alignas(64) BlockSums {
  std::int32_t high[16][16], low[16][16];  // (token, row)
};

// acc += the sums of tokens [From, From + 4), scaled.   d, m: of the 16 rows' block
template <WeightFormat F, int From>
inline void add_tokens(__m512 d, __m512 m, const ActivationBlock& panel, const BlockSums& sums, __m512 (&acc)[16]) noexcept {
#pragma GCC unroll 4
  for (int t = From; t < From + 4; ++t) {
    const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sums.high[t]), 7);
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(sums.low[t])));
    acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(sum, d), _mm512_set1_ps(panel.scale[t]), acc[t]);
    if (F == WeightFormat::q4_1) acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(panel.scaled_sum[t]), acc[t]);
  }
}

// y (+)= `blocks` blocks of a weight tile times a panel of `tokens` tokens. A block is multiplied in one step, its sums leave their tiles
// in the next and are scaled in the one after. The three works are interleaved, as a core looks ahead hardly farther than one of them:
// one after the other they took 10 % longer (Xeon of 2.8 GHz).
template <WeightFormat F, class Tiles>
void add_panel(Tiles& tiles, const std::byte* weights, const UnpackedBlock* unpacked, std::int64_t blocks, const ActivationBlock* panel,
               int tokens, bool first, Out out) noexcept {
  BlockSums sums[2];
  __m512 acc[16];
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) acc[t] = first || t >= tokens ? _mm512_setzero_ps() : out.load(t, 0);

  const auto step = [&](std::int64_t b, auto turn) __attribute__((always_inline)) {
    constexpr int quants = first_quants + turn, high = first_sums + 2 * turn, low = high + 1;
    constexpr int last_high = first_sums + 2 * (1 - turn), last_low = last_high + 1;
    const bool multiplies = b < blocks, stores = b >= 1 && b <= blocks, scales = b >= 2;
    const ActivationBlock& done = panel[scales ? b - 2 : 0];
    const std::byte* scale = weights + (scales ? b - 2 : 0) * 16 * block_of(F).bytes;
    const __m512 d = load_16_halves(scale), m = F == WeightFormat::q4_1 ? load_16_halves(scale + 32) : __m512{};
    if (multiplies) [[likely]] {
      tiles.template load<quants>(unpacked[b], 64);
      tiles.template load<high_bytes>(panel[b].high, 32);
      tiles.template zero<high>();
      tiles.template multiply_add_bytes<high, high_bytes, quants>();
    }
    if (scales) [[likely]] add_tokens<F, 0>(d, m, done, sums[turn], acc);
    if (multiplies) [[likely]] {
      tiles.template load<low_bytes>(panel[b].low, 32);
      tiles.template zero<low>();
      tiles.template multiply_add_bytes<low, low_bytes, quants>();
    }
    if (scales) [[likely]] add_tokens<F, 4>(d, m, done, sums[turn], acc);
    if (stores) [[likely]] tiles.template store<last_high>(sums[1 - turn].high, 64);
    if (scales) [[likely]] add_tokens<F, 8>(d, m, done, sums[turn], acc);
    if (stores) [[likely]] tiles.template store<last_low>(sums[1 - turn].low, 64);
    if (scales) [[likely]] add_tokens<F, 12>(d, m, done, sums[turn], acc);
  };
  for (std::int64_t b = 0; b < blocks + 2; b += 2) {
    step(b, std::integral_constant<int, 0>{});
    if (b + 1 < blocks + 2) step(b + 1, std::integral_constant<int, 1>{});
  }
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t)
    if (t < tokens) out.store(t, 0, acc[t]);
}

// Three bf16 whose sum is x: cutting bits off leaves a difference that a float holds. (Below 2^-126 they count as 0.)
void split(const float* x, std::int64_t x_stride, std::int64_t tokens, std::int64_t cols, SplitBlock* panel) noexcept {
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t c = 0; c < (cols + 31) / 32 * 32; c += 16) {
      const auto there = static_cast<__mmask16>((1u << std::clamp<std::int64_t>(cols - c, 0, 16)) - 1);
      __m512 left = _mm512_maskz_loadu_ps(there, x + t * x_stride + c);
      for (auto& part : panel[c / 32].parts) {
        const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(left), 16);
        _mm256_store_si256(reinterpret_cast<__m256i*>(part[t] + c % 32), _mm512_cvtepi32_epi16(bits));
        left = _mm512_sub_ps(left, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
      }
    }
}

// Tiles: B operands of two weight tiles, A operands of two panels, their four sums.
inline TileShapes split_shapes(int tokens) noexcept {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) {
    shapes.rows[tile] = static_cast<std::uint8_t>(tile < 2 ? 16 : tokens);
    shapes.row_bytes[tile] = 64;
  }
  return shapes;
}

template <int Sum, class Tiles>
inline void store_sums(Tiles& tiles, int first, int tokens, int weight_tile, Out out) noexcept {
  alignas(64) float sums[16][16];
  tiles.template store<Sum>(sums, 64);
  for (int t = 0; t < tokens; ++t) out.store(first + t, weight_tile, _mm512_load_ps(sums[t]));
}

// One or two panels of `tokens` tokens, `blocks` blocks apart, times one or two weight tiles.
template <int Panels, int WeightTiles, class Tiles>
void multiply_split(Tiles& tiles, const std::byte* weights, std::int64_t blocks, const SplitBlock* panel, int tokens, Out out) noexcept {
  constexpr std::int64_t block_bytes = 16 * 32 * 2;
  constexpr bool two_panels = Panels == 2, two_tiles = WeightTiles == 2;
  tiles.template zero<4>();
  if (two_tiles) tiles.template zero<5>();
  if (two_panels) tiles.template zero<6>();
  if (two_panels && two_tiles) tiles.template zero<7>();
  for (std::int64_t b = 0; b < blocks; ++b) {
    tiles.template load<0>(weights + b * block_bytes, 64);
    if (two_tiles) tiles.template load<1>(weights + (blocks + b) * block_bytes, 64);
#pragma GCC unroll 3
    for (int part = 2; part >= 0; --part) {
      tiles.template load<2>(panel[b].parts[part], 64);
      if (two_panels) tiles.template load<3>(panel[blocks + b].parts[part], 64);
      tiles.template multiply_add_bf16<4, 2, 0>();
      if (two_tiles) tiles.template multiply_add_bf16<5, 2, 1>();
      if (two_panels) tiles.template multiply_add_bf16<6, 3, 0>();
      if (two_panels && two_tiles) tiles.template multiply_add_bf16<7, 3, 1>();
    }
  }
  store_sums<4>(tiles, 0, tokens, 0, out);
  if (two_tiles) store_sums<5>(tiles, 0, tokens, 1, out);
  if (two_panels) store_sums<6>(tiles, tokens, tokens, 0, out);
  if (two_panels && two_tiles) store_sums<7>(tiles, tokens, tokens, 1, out);
}

}  // namespace
}  // namespace lmkit::kernels
