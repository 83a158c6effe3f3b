// SPDX-License-Identifier: Apache-2.0
//
// What gemm.cpp asks of each instruction set (isa/gemm.cpp), and the layout both sides share.
//
// Packed weights: tiles of 16 rows, one after the other; a tile is a run of blocks along its columns.
//   quantised, a block of 32 columns:  half d[16]; Q4_1: half m[16]; then 64-byte groups of 4 columns x 16 rows, so
//     that byte 4 r + k of a group belongs to row r. Q8_0: 8 groups, values + 128, group g holds columns 4 g + k.
//     Q4: 4 groups, group g holds columns 4 g + k in its low and 16 + 4 g + k in its high nibbles.
//   BF16, a block of 2 columns:        value[16][2], of whole 32 columns; those that are not there are zeros
//   F16, F32, a block of 1 column:     value[16]
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {

inline constexpr int gemm_tile_rows = 16;
inline constexpr int gemm_panel_tokens = 16;

constexpr std::int64_t gemm_tile_bytes(WeightFormat format, std::int64_t cols) noexcept {
  if (format == WeightFormat::bf16) cols = (cols + 31) / 32 * 32;
  return gemm_tile_rows * (cols / block_of(format).values * block_of(format).bytes);
}

constexpr bool is_quantised(WeightFormat format) noexcept { return block_of(format).values > 1; }

// 32 columns of 16 tokens' activations, quantised: x = scale * value, value = 128 high + low. One byte each is not enough: 8 bits
// in front of every product cost the 135M model a mean divergence of 4e-3 in its next-token distributions, 15 bits 1e-6.
struct alignas(64) ActivationBlock {
  union {
    struct {
      std::int8_t high[gemm_panel_tokens][32];  // in [-127, 127]
      std::int8_t low[gemm_panel_tokens][32];   // in [-64, 63]
    };
    std::int16_t values[gemm_panel_tokens][32];  // AVX2: whole, columns 4 j + 0, 2, 1, 3 in this order
  };
  float scale[gemm_panel_tokens];
  float scaled_sum[gemm_panel_tokens];             // scale * sum(values): meets Q4_1's minimum
  std::int32_t minus_8_sums[gemm_panel_tokens];    // -8 sum(values): where Q4_0's integer sums start
  std::int32_t minus_128_sums[gemm_panel_tokens];  // -128 sum(values): the same for Q8_0
};

// 32 columns of 16 tokens' activations, each the sum of three bf16 without any rounding: what matrix registers multiply BF16
// weights with.
struct alignas(64) SplitBlock {
  std::uint16_t parts[3][gemm_panel_tokens][32];  // the largest first
};

// y[t][r] = sum over columns, for `tiles` whole tiles of weights (of which `rows` rows exist) and `tokens` tokens.
struct GemmTask {
  WeightFormat format;
  const std::byte* weights;
  std::int64_t tiles;
  std::int64_t rows;
  std::int64_t cols;
  const ActivationBlock* panels;  // (ceil(tokens / 16), cols / 32): quantised formats
  const SplitBlock* split;        // the same, columns rounded up: BF16 where the set has `split`
  const float* x;                 // (tokens, cols): other float formats
  std::int64_t x_stride;
  std::int64_t tokens;
  float* y;
  std::int64_t y_stride;
};

struct GemmKernels {
  // One panel: up to 16 tokens of x, (tokens, 32 blocks), to (blocks). Absent tokens are left as they are.
  void (*quantise)(const float* x, std::int64_t x_stride, std::int64_t tokens, std::int64_t blocks, ActivationBlock* panel) noexcept;
  // The same for BF16 weights, (tokens, cols) to (ceil(cols / 32)); null in a set that multiplies them with x as it is.
  void (*split)(const float* x, std::int64_t x_stride, std::int64_t tokens, std::int64_t cols, SplitBlock* panel) noexcept;
  void (*multiply)(const GemmTask& task) noexcept;
};

template <class Isa>
const GemmKernels& gemm_kernels() noexcept;  // defined in isa/gemm.cpp

}  // namespace lmkit::kernels
