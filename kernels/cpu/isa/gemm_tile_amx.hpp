// SPDX-License-Identifier: Apache-2.0
//
// gemm for AMX: 16 tokens x 16 rows x 32 columns in two instructions, one for the high and one for the low bytes of the
// activations; a panel's bytes are the A operand and an unpacked block of weights the B operand as they lie. The integers are
// then scaled and added up as in gemm_tile_avx512.hpp, in the same order, so both give the same bits. Scaling is what
// limits: 5 (Q4_1: 6) vector instructions for 512 products of 15 bits, where AVX-512 needs 16 more to multiply.
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

// Tiles: A operands, B operand, and two pairs of sums in turn.
constexpr int high_bytes = 0, low_bytes = 1, quants = 2, first_sums = 4;

inline TileShapes tile_shapes() noexcept {
  TileShapes shapes;
  const auto set = [&](int tile, std::uint8_t rows, std::uint16_t row_bytes) {
    shapes.rows[tile] = rows;
    shapes.row_bytes[tile] = row_bytes;
  };
  set(high_bytes, 16, 32);
  set(low_bytes, 16, 32);
  set(quants, 8, 64);
  for (int tile = first_sums; tile < first_sums + 4; ++tile) set(tile, 16, 64);
  return shapes;
}

struct alignas(64) BlockSums {
  std::int32_t high[16][16], low[16][16];  // (token, row)
};

template <int Turn, class Tiles>
inline void multiply_block(Tiles& tiles, const UnpackedBlock& weights, const ActivationBlock& panel, BlockSums& out) noexcept {
  constexpr int high = first_sums + 2 * Turn, low = high + 1;
  tiles.template load<quants>(weights, 64);
  tiles.template load<high_bytes>(panel.high, 32);
  tiles.template load<low_bytes>(panel.low, 32);
  tiles.template zero<high>();
  tiles.template multiply_add<high, high_bytes, quants>();
  tiles.template zero<low>();
  tiles.template multiply_add<low, low_bytes, quants>();
  tiles.template store<high>(out.high, 64);
  tiles.template store<low>(out.low, 64);
}

template <WeightFormat F>
inline void add_block(const std::byte* weights, const ActivationBlock& panel, const BlockSums& sums, __m512 (&acc)[16]) noexcept {
  constexpr bool has_minimum = F == WeightFormat::q4_1;
  const __m512 d = load_16_halves(weights);
  const __m512 m = has_minimum ? load_16_halves(weights + 32) : __m512{};
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) {
    const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sums.high[t]), 7);
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(sums.low[t])));
    acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(sum, d), _mm512_set1_ps(panel.scale[t]), acc[t]);
    if (has_minimum) acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(panel.scaled_sum[t]), acc[t]);
  }
}

// y (+)= `blocks` <= run_blocks blocks of a weight tile times a panel of `tokens` tokens. While the tiles multiply a block,
// the sums of the one before are scaled.
template <WeightFormat F, class Tiles>
void add_panel(Tiles& tiles, const std::byte* weights, const UnpackedBlock* unpacked, std::int64_t blocks, const ActivationBlock* panel,
               int tokens, bool first, Out out) noexcept {
  constexpr std::int64_t block_bytes = 16 * block_of(F).bytes;
  BlockSums sums[2];
  __m512 acc[16];
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) acc[t] = first || t >= tokens ? _mm512_setzero_ps() : out.load(t, 0);
  multiply_block<0>(tiles, unpacked[0], panel[0], sums[0]);
  std::int64_t b = 0;
  for (; b + 2 < blocks; b += 2) {
    multiply_block<1>(tiles, unpacked[b + 1], panel[b + 1], sums[1]);
    add_block<F>(weights + b * block_bytes, panel[b], sums[0], acc);
    multiply_block<0>(tiles, unpacked[b + 2], panel[b + 2], sums[0]);
    add_block<F>(weights + (b + 1) * block_bytes, panel[b + 1], sums[1], acc);
  }
  if (b + 1 < blocks) multiply_block<1>(tiles, unpacked[b + 1], panel[b + 1], sums[1]);
  add_block<F>(weights + b * block_bytes, panel[b], sums[0], acc);
  if (b + 1 < blocks) add_block<F>(weights + (b + 1) * block_bytes, panel[b + 1], sums[1], acc);
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t)
    if (t < tokens) out.store(t, 0, acc[t]);
}

}  // namespace
}  // namespace lmkit::kernels
