// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of gemm, plain: one tile of 16 rows times one token. The same functions exist for AVX2 and
// AVX-512 (gemm_tile_avx2.hpp, gemm_tile_avx512.hpp), for more tokens at a time; a (row, token) is summed in the
// same order whatever the number, so results do not depend on it.
#pragma once

#include "../gemm_kernels.hpp"

#include <lmkit/base/half.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace lmkit::kernels {
namespace {

constexpr int widest_quantised = 1;  // tokens of the widest quantised_tile, a power of two
constexpr int widest_float = 1;      // the same for float_tile, and its
constexpr int float_tiles = 1;       // weight tiles

// Where a tile's results go: rows [0, rows) of token t at y + t * stride.
struct Out {
  float* y;
  std::int64_t stride;
  int rows;
};

template <WeightFormat F, int Tokens>
void quantised_tile(const std::byte* weights, std::int64_t blocks, const ActivationBlock* panel, int token, Out out) noexcept {
  static_assert(Tokens == 1);
  constexpr bool q8 = F == WeightFormat::q8_0;
  constexpr bool has_minimum = F == WeightFormat::q4_1;
  float acc[16] = {};
  for (std::int64_t b = 0; b < blocks; ++b, weights += 16 * block_of(F).bytes, ++panel) {
    Half d[16], m[16];
    std::memcpy(d, weights, 32);
    std::memcpy(m, weights + 32, 32);
    const std::byte* q = weights + (has_minimum ? 64 : 32);
    const std::int8_t *high = panel->high[token], *low = panel->low[token];
    for (int r = 0; r < 16; ++r) {
      std::int32_t sum = has_minimum ? 0 : q8 ? panel->minus_128_sums[token] : panel->minus_8_sums[token];
      for (int i = 0; i < (q8 ? 32 : 16); ++i) {
        const int byte = static_cast<int>(q[64 * (i / 4) + 4 * r + i % 4]);
        const auto value = [&](int column) { return 128 * high[column] + low[column]; };
        sum += q8 ? byte * value(i) : (byte & 15) * value(i) + (byte >> 4) * value(i + 16);
      }
      acc[r] += static_cast<float>(sum) * to_float(d[r]) * panel->scale[token];
      if (has_minimum) acc[r] += to_float(m[r]) * panel->scaled_sum[token];
    }
  }
  std::memcpy(out.y, acc, sizeof(float) * static_cast<std::size_t>(std::min(out.rows, 16)));
}

template <class T, int Tokens, int Tiles>
void float_tile(const std::byte* weights, std::int64_t cols, const float* x, std::int64_t, Out out) noexcept {
  static_assert(Tokens == 1 && Tiles == 1);
  float acc[16] = {};
  constexpr int together = std::is_same_v<T, BFloat16> ? 2 : 1;  // columns of a row
  for (std::int64_t c = 0; c < cols; ++c) {
    T w[16][together];
    std::memcpy(w, weights + c / together * static_cast<std::int64_t>(sizeof w), sizeof w);
    for (int r = 0; r < 16; ++r) {
      if constexpr (std::is_same_v<T, float>)
        acc[r] += w[r][0] * x[c];
      else
        acc[r] += to_float(w[r][c % together]) * x[c];
    }
  }
  std::memcpy(out.y, acc, sizeof(float) * static_cast<std::size_t>(std::min(out.rows, 16)));
}

}  // namespace
}  // namespace lmkit::kernels
