// SPDX-License-Identifier: Apache-2.0
//
// The loops around gemm's tiles, and the quantisation of activations.
#if defined(LMKIT_ISA_IS_amx)
#include "gemm_tile_amx.hpp"
#elif defined(LMKIT_ISA_IS_avx512)
#include "gemm_tile_avx512.hpp"
#elif defined(LMKIT_ISA_IS_avx2)
#include "gemm_tile_avx2.hpp"
#else
#include "gemm_tile.hpp"
#endif

#include <algorithm>

namespace lmkit::kernels {
namespace {

constexpr float largest_activation = 127 * 128;

float quantise_block(const float* x, ActivationBlock& block, std::int64_t t, std::int32_t& sum) noexcept {
  // As integers, |x| orders like a float and NaN comes last, so a bad value shows in the scale.
  std::uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, __builtin_bit_cast(std::uint32_t, x[i]) & 0x7fffffffu);
  const float peak = __builtin_bit_cast(float, largest);
  const bool tiny = peak < 0x1p-100f;  // counts as 0: largest_activation / peak must be finite
  const float inverse = tiny ? 0.0f : largest_activation / peak;
  std::int32_t total = 0;
  for (int i = 0; i < 32; ++i) {
    // Adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low 16 bits; of what is not a number, any integer.
    const float shifted = x[i] * inverse + 0x1.8p23f;
    const std::int32_t value = static_cast<std::int16_t>(__builtin_bit_cast(std::int32_t, shifted));
#if defined(LMKIT_ISA_IS_avx2)
    block.values[t][i] = static_cast<std::int16_t>(value);
#else
    block.high[t][i] = static_cast<std::int8_t>((value + 64) >> 7);
    block.low[t][i] = static_cast<std::int8_t>(((value + 64) & 127) - 64);
#endif
    total += value;
  }
#if defined(LMKIT_ISA_IS_avx2)
  pair_columns(block.values[t]);
#endif
  sum = total;
  return tiny ? 0.0f : peak / largest_activation;
}

void quantise(const float* x, std::int64_t x_stride, std::int64_t tokens, std::int64_t blocks, ActivationBlock* panel) noexcept {
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::int32_t sum;
      const float scale = quantise_block(x + t * x_stride + 32 * b, panel[b], t, sum);
      panel[b].scale[t] = scale;
      panel[b].scaled_sum[t] = scale * static_cast<float>(sum);
      panel[b].minus_8_sums[t] = -8 * sum;
      panel[b].minus_128_sums[t] = -128 * sum;
    }
}

Out out_of(const GemmTask& task, std::int64_t tile, std::int64_t token) noexcept {
  const std::int64_t row = tile * gemm_tile_rows;
  return {task.y + token * task.y_stride + row, task.y_stride, static_cast<int>(std::min<std::int64_t>(task.rows - row, 2 * gemm_tile_rows))};
}

// Tokens [from, to) of a tile, as many at a time as go, then half as many, ...
template <WeightFormat F, int Tokens>
void quantised_tokens(const GemmTask& task, const std::byte* weights, std::int64_t tile, std::int64_t from, std::int64_t to) noexcept {
  const std::int64_t blocks = task.cols / 32;
  for (; from + Tokens <= to; from += Tokens)
    quantised_tile<F, Tokens>(weights, blocks, task.panels + from / gemm_panel_tokens * blocks,
                              static_cast<int>(from % gemm_panel_tokens), out_of(task, tile, from));
  if constexpr (Tokens > 1) quantised_tokens<F, Tokens / 2>(task, weights, tile, from, to);
}

#if defined(LMKIT_ISA_IS_amx)
// Whole panels, and a last one of not too few tokens, in matrix registers. Returns how many tokens that is.
template <WeightFormat F>
std::int64_t multiply_panels(const GemmTask& task) noexcept {
  const std::int64_t rest = task.tokens % gemm_panel_tokens, tokens = rest < fewest_for_tiles ? task.tokens - rest : task.tokens;
  if (tokens == 0) return 0;
  const std::int64_t blocks = task.cols / 32, block_bytes = 16 * block_of(F).bytes;
  LMKIT_TILES tiles(tile_shapes());
  alignas(64) UnpackedBlock unpacked[run_blocks];
  for (std::int64_t tile = 0; tile < task.tiles; ++tile)
    for (std::int64_t b = 0; b < blocks; b += run_blocks) {
      const std::int64_t count = std::min(run_blocks, blocks - b);
      const std::byte* weights = task.weights + (tile * blocks + b) * block_bytes;
      unpack<F>(weights, count, unpacked);
      for (std::int64_t from = 0; from < tokens; from += gemm_panel_tokens)
        add_panel<F>(tiles, weights, unpacked, count, task.panels + from / gemm_panel_tokens * blocks + b,
                     static_cast<int>(std::min<std::int64_t>(gemm_panel_tokens, tokens - from)), b == 0, out_of(task, tile, from));
    }
  return tokens;
}

// Tokens [from, to), whole panels or less than one, times weight tiles from `tile` on.
template <int WeightTiles>
void multiply_split_tokens(LMKIT_TILES& tiles, const GemmTask& task, std::int64_t tile, std::int64_t from, std::int64_t to) noexcept {
  const std::int64_t blocks = (task.cols + 31) / 32;
  const std::byte* weights = task.weights + tile * gemm_tile_bytes(WeightFormat::bf16, task.cols);
  const auto panel = [&] { return task.split + from / gemm_panel_tokens * blocks; };
  for (; to - from >= 2 * gemm_panel_tokens; from += 2 * gemm_panel_tokens)
    multiply_split<2, WeightTiles>(tiles, weights, blocks, panel(), gemm_panel_tokens, out_of(task, tile, from));
  if (from < to) multiply_split<1, WeightTiles>(tiles, weights, blocks, panel(), static_cast<int>(to - from), out_of(task, tile, from));
}

void multiply_bf16(const GemmTask& task) noexcept {
  const auto multiply_tokens = [&](std::int64_t from, std::int64_t to, int in_a_panel) {
    LMKIT_TILES tiles(split_shapes(in_a_panel));
    std::int64_t tile = 0;
    for (; tile + 2 <= task.tiles; tile += 2) multiply_split_tokens<2>(tiles, task, tile, from, to);
    if (tile < task.tiles) multiply_split_tokens<1>(tiles, task, tile, from, to);
  };
  const std::int64_t rest = task.tokens % gemm_panel_tokens, whole = task.tokens - rest;
  if (whole > 0) multiply_tokens(0, whole, gemm_panel_tokens);
  if (rest > 0) multiply_tokens(whole, task.tokens, static_cast<int>(rest));
}
#else
template <WeightFormat>
std::int64_t multiply_panels(const GemmTask&) noexcept {
  return 0;
}

constexpr decltype(GemmKernels::split) split = nullptr;
#endif

// The tile stays in the nearest cache while all tokens pass by it.
template <WeightFormat F>
void multiply_quantised(const GemmTask& task) noexcept {
  const std::int64_t tile_bytes = gemm_tile_bytes(F, task.cols), done = multiply_panels<F>(task);
  for (std::int64_t tile = 0; tile < task.tiles && done < task.tokens; ++tile)
    quantised_tokens<F, widest_quantised>(task, task.weights + tile * tile_bytes, tile, done, task.tokens);
}

template <class T, int Tokens, int Tiles>
void float_tokens(const GemmTask& task, const std::byte* weights, std::int64_t tile, std::int64_t from) noexcept {
  for (; from + Tokens <= task.tokens; from += Tokens)
    float_tile<T, Tokens, Tiles>(weights, task.cols, task.x + from * task.x_stride, task.x_stride, out_of(task, tile, from));
  if constexpr (Tokens > 1) float_tokens<T, Tokens / 2, Tiles>(task, weights, tile, from);
}

template <class T, int Tiles = float_tiles>
void multiply_float(const GemmTask& task, std::int64_t tile = 0) noexcept {
  const std::int64_t tile_bytes = gemm_tile_bytes(task.format, task.cols);
  for (; tile + Tiles <= task.tiles; tile += Tiles)
    float_tokens<T, widest_float, Tiles>(task, task.weights + tile * tile_bytes, tile, 0);
  if constexpr (Tiles > 1) multiply_float<T, Tiles / 2>(task, tile);
}

#if !defined(LMKIT_ISA_IS_amx)
void multiply_bf16(const GemmTask& task) noexcept { multiply_float<BFloat16>(task); }
#endif

void multiply(const GemmTask& task) noexcept {
  switch (task.format) {
    case WeightFormat::f32: multiply_float<float>(task); break;
    case WeightFormat::f16: multiply_float<Half>(task); break;
    case WeightFormat::bf16: multiply_bf16(task); break;
    case WeightFormat::q8_0: multiply_quantised<WeightFormat::q8_0>(task); break;
    case WeightFormat::q4_0: multiply_quantised<WeightFormat::q4_0>(task); break;
    case WeightFormat::q4_1: multiply_quantised<WeightFormat::q4_1>(task); break;
  }
}

}  // namespace

template <>
const GemmKernels& gemm_kernels<isa::LMKIT_ISA>() noexcept {
  static constexpr GemmKernels kernels{quantise, split, multiply};
  return kernels;
}

}  // namespace lmkit::kernels
