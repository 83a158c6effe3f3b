// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/half.hpp>
#include <lmkit/kernels/embedding.hpp>

#include <cstring>

namespace lmkit::kernels {
namespace {

template <class T>
void widen(const std::byte* in, std::int64_t cols, float* out) noexcept {
  for (std::int64_t c = 0; c < cols; ++c) {
    T value;
    std::memcpy(&value, in + c * static_cast<std::int64_t>(sizeof value), sizeof value);
    out[c] = to_float(value);
  }
}

float half_at(const std::byte* in) noexcept {
  Half value;
  std::memcpy(&value, in, sizeof value);
  return to_float(value);
}

void expand_q8_0(const std::byte* in, std::int64_t cols, float* out) noexcept {
  for (std::int64_t b = 0; b < cols / 32; ++b, in += 34, out += 32) {
    const float d = half_at(in);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
  }
}

// value = d * q + m, with m = -8 d for Q4_0
void expand_q4(const std::byte* in, std::int64_t cols, bool has_minimum, float* out) noexcept {
  const int header = has_minimum ? 4 : 2;
  for (std::int64_t b = 0; b < cols / 32; ++b, in += header + 16, out += 32) {
    const float d = half_at(in);
    const float m = has_minimum ? half_at(in + 2) : -8.0f * d;
    for (int i = 0; i < 16; ++i) {
      const int pair = static_cast<int>(in[header + i]);
      out[i] = d * static_cast<float>(pair & 15) + m;
      out[i + 16] = d * static_cast<float>(pair >> 4) + m;
    }
  }
}

}  // namespace

void expand_row(const MatrixView& matrix, std::int64_t row, float* out) noexcept {
  const std::byte* in = matrix.row(row);
  switch (matrix.format) {
    case WeightFormat::f32: std::memcpy(out, in, static_cast<std::size_t>(matrix.cols) * sizeof(float)); break;
    case WeightFormat::f16: widen<Half>(in, matrix.cols, out); break;
    case WeightFormat::bf16: widen<BFloat16>(in, matrix.cols, out); break;
    case WeightFormat::q8_0: expand_q8_0(in, matrix.cols, out); break;
    case WeightFormat::q4_0: expand_q4(in, matrix.cols, false, out); break;
    case WeightFormat::q4_1: expand_q4(in, matrix.cols, true, out); break;
  }
}

void embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, float* out, Stream stream) noexcept {
  stream.parallel_for(count, [&](std::int32_t i, int) { expand_row(table, tokens[i], out + i * table.cols); });
}

}  // namespace lmkit::kernels
