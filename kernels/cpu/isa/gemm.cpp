// SPDX-License-Identifier: Apache-2.0
#include "../gemm_kernels.hpp"

#include <lmkit/base/half.hpp>

#include <algorithm>
#include <cstring>

namespace lmkit::kernels {
namespace {

float quantise_block(const float* x, std::int8_t* values, std::int32_t& sum) noexcept {
  // As integers, |x| orders like a float and NaN comes last, so a bad value shows in the scale.
  std::uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, __builtin_bit_cast(std::uint32_t, x[i]) & 0x7fffffffu);
  const float peak = __builtin_bit_cast(float, largest);
  const bool tiny = peak < 0x1p-100f;  // counts as 0: 127 / peak must be finite
  const float inverse = tiny ? 0.0f : 127.0f / peak;
  std::int32_t total = 0;
  for (int i = 0; i < 32; ++i) {
    // Adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits.
    const float shifted = x[i] * inverse + 0x1.8p23f;
    values[i] = static_cast<std::int8_t>(__builtin_bit_cast(std::int32_t, shifted) - 0x4b400000);
    total += values[i];
  }
  sum = total;
  return tiny ? 0.0f : peak / 127.0f;
}

void quantise(const float* x, std::int64_t x_stride, std::int64_t tokens, std::int64_t blocks, ActivationBlock* panel) noexcept {
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::int32_t sum;
      const float scale = quantise_block(x + t * x_stride + 32 * b, panel[b].values[t], sum);
      panel[b].scale[t] = scale;
      panel[b].scaled_sum[t] = scale * static_cast<float>(sum);
      panel[b].minus_8_sums[t] = -8 * sum;
      panel[b].minus_128_sums[t] = -128 * sum;
    }
}

template <WeightFormat F>
void quantised_tile(const std::byte* weights, std::int64_t blocks, const ActivationBlock* panel, int token, float (&y)[16]) noexcept {
  constexpr int block_bytes = 16 * block_of(F).bytes;
  float acc[16] = {};
  for (std::int64_t b = 0; b < blocks; ++b, weights += block_bytes) {
    Half d[16], m[16] = {};
    std::memcpy(d, weights, sizeof d);
    const std::byte* q = weights + sizeof d;
    if constexpr (F == WeightFormat::q4_1) {
      std::memcpy(m, q, sizeof m);
      q += sizeof m;
    }
    const std::int8_t* a = panel[b].values[token];
    for (int r = 0; r < 16; ++r) {
      std::int32_t sum = F == WeightFormat::q8_0   ? panel[b].minus_128_sums[token]
                         : F == WeightFormat::q4_0 ? panel[b].minus_8_sums[token]
                                                   : 0;
      for (int g = 0; g < (F == WeightFormat::q8_0 ? 8 : 4); ++g)
        for (int k = 0; k < 4; ++k) {
          const int byte = static_cast<int>(q[64 * g + 4 * r + k]);
          if constexpr (F == WeightFormat::q8_0)
            sum += byte * a[4 * g + k];
          else
            sum += (byte & 15) * a[4 * g + k] + (byte >> 4) * a[16 + 4 * g + k];
        }
      acc[r] += static_cast<float>(sum) * to_float(d[r]) * panel[b].scale[token];
      if constexpr (F == WeightFormat::q4_1) acc[r] += to_float(m[r]) * panel[b].scaled_sum[token];
    }
  }
  std::memcpy(y, acc, sizeof acc);
}

template <class T>
void float_tile(const std::byte* weights, std::int64_t cols, const float* x, float (&y)[16]) noexcept {
  float acc[16] = {};
  for (std::int64_t c = 0; c < cols; ++c) {
    T w[16];
    std::memcpy(w, weights + c * static_cast<std::int64_t>(sizeof w), sizeof w);
    for (int r = 0; r < 16; ++r) {
      if constexpr (std::is_same_v<T, float>)
        acc[r] += w[r] * x[c];
      else
        acc[r] += to_float(w[r]) * x[c];
    }
  }
  std::memcpy(y, acc, sizeof acc);
}

void multiply(const GemmTask& task) noexcept {
  const std::int64_t tile_bytes = task.cols / block_of(task.format).values * block_of(task.format).bytes * gemm_tile_rows;
  const std::int64_t blocks = task.cols / 32;
  for (std::int64_t tile = 0; tile < task.tiles; ++tile)
    for (std::int64_t t = 0; t < task.tokens; ++t) {
      const std::byte* weights = task.weights + tile * tile_bytes;
      const ActivationBlock* panel = task.panels + t / gemm_panel_tokens * blocks;
      const int token = static_cast<int>(t % gemm_panel_tokens);
      const float* x = task.x + t * task.x_stride;
      float y[16];
      switch (task.format) {
        case WeightFormat::f32: float_tile<float>(weights, task.cols, x, y); break;
        case WeightFormat::f16: float_tile<Half>(weights, task.cols, x, y); break;
        case WeightFormat::bf16: float_tile<BFloat16>(weights, task.cols, x, y); break;
        case WeightFormat::q8_0: quantised_tile<WeightFormat::q8_0>(weights, blocks, panel, token, y); break;
        case WeightFormat::q4_0: quantised_tile<WeightFormat::q4_0>(weights, blocks, panel, token, y); break;
        case WeightFormat::q4_1: quantised_tile<WeightFormat::q4_1>(weights, blocks, panel, token, y); break;
      }
      const std::int64_t first = tile * gemm_tile_rows;
      std::memcpy(task.y + t * task.y_stride + first, y, sizeof(float) * static_cast<std::size_t>(std::min<std::int64_t>(16, task.rows - first)));
    }
}

}  // namespace

template <>
const GemmKernels& gemm_kernels<isa::LMKIT_ISA>() noexcept {
  static constexpr GemmKernels kernels{quantise, multiply};
  return kernels;
}

}  // namespace lmkit::kernels
