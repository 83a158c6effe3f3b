// SPDX-License-Identifier: Apache-2.0
//
// Loops that the compiler vectorises, at the width of each instruction set.
#include "../row_kernels.hpp"

#include <cmath>

namespace lmkit::kernels {
namespace {

// exp(x) within 3e-7 of its value, for x in [-87, 88].
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by its Taylor series.
inline float exp_of(float x) noexcept {
  const float shifted = x * 1.44269504f + 0x1.8p23f;  // rounds to an integer, which then stands in the low bits
  const float n = shifted - 0x1.8p23f;
  const float r = (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;  // ln 2 in two parts: n times the first is exact
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const std::int32_t exponent = __builtin_bit_cast(std::int32_t, shifted) - 0x4b400000;
  return p * __builtin_bit_cast(float, (exponent + 127) << 23);
}

void rms_norm(const float* x, const float* weight, float* out, std::int64_t cols, float eps) noexcept {
  constexpr int lanes = 64;  // partial sums: enough for four registers of 16, and closer to the exact sum than one
  float partial[lanes] = {};
  std::int64_t c = 0;
  for (; c + lanes <= cols; c += lanes)
    for (int i = 0; i < lanes; ++i) partial[i] += x[c + i] * x[c + i];
  for (int i = 0; c < cols; ++c, ++i) partial[i] += x[c] * x[c];
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  const float scale = 1.0f / std::sqrt(partial[0] / static_cast<float>(cols) + eps);
  for (c = 0; c < cols; ++c) out[c] = x[c] * scale * weight[c];
}

void add(float* sum, const float* x, std::int64_t cols) noexcept {
  for (std::int64_t c = 0; c < cols; ++c) sum[c] += x[c];
}

void silu_mul(const float* __restrict gate, const float* __restrict up, float* __restrict out, std::int64_t cols) noexcept {
  constexpr int run = 64;
  for (std::int64_t c = 0; c < cols; c += run) {
    const int count = static_cast<int>(std::min<std::int64_t>(run, cols - c));
    float exponent[run];  // a loop of its own: g++ 12 turns a clamp followed by exp_of into branches
    for (int i = 0; i < count; ++i) exponent[i] = std::min(std::max(-gate[c + i], -87.0f), 88.0f);
    for (int i = 0; i < count; ++i) out[c + i] = gate[c + i] / (1.0f + exp_of(exponent[i])) * up[c + i];
  }
}

}  // namespace

template <>
const RowKernels& row_kernels<isa::LMKIT_ISA>() noexcept {
  static constexpr RowKernels kernels{rms_norm, add, silu_mul};
  return kernels;
}

}  // namespace lmkit::kernels
