// SPDX-License-Identifier: Apache-2.0
//
// AffineCodec::encode by a warp: the same guess, rounds of least squares and choice as ../affine_codec.hpp explains, with a
// group's values spread over the lanes. A group of 128 takes one thread 35 us at 4 bits, longer than attention at batch 1.
#pragma once

#include <lmkit/kernels/affine_codec.hpp>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

__device__ __forceinline__ float sum_over_warp(float x) { return sum_over_columns(sum_over_rows(x)); }
__device__ __forceinline__ float max_over_warp(float x) { return max_over_columns(max_over_rows(x)); }

// How a warp encodes a group: this finds nothing, so that kernels let one thread call the codec's encode.
template <class Codec>
struct WarpEncoder {
  static constexpr bool exists = false;
};

template <int bits, int group, bool symmetric>
  requires(group % 4 == 0 && group >= 32 && (group <= 128 || group == 256))
struct WarpEncoder<AffineCodec<bits, group, symmetric>> {
  static constexpr bool exists = true;
  using Packed = typename AffineCodec<bits, group, symmetric>::Packed;
  static constexpr int share = group <= 64 && group % 32 == 0 ? 2 : group <= 128 ? 4 : group / 32;  // values of a lane
  static constexpr float top = (1 << bits) - 1, middle = 1 << (bits - 1);

  struct Line {
    float scale, bias;
  };
  struct Fit {
    float error;
    Line better;
  };

  float x[share];
  bool active;  // the last lanes of a group that 32 does not divide hold nothing

  __device__ static float at_half(float v) { return __half2float(__float2half_rn(fminf(fmaxf(v, -65504.f), 65504.f))); }
  __device__ static Line line_of(float scale, float bias) {
    scale = at_half(scale);
    return {scale, symmetric ? -scale * middle : at_half(bias)};
  }
  __device__ static float inverse_of(const Line& line) { return line.scale == 0.f ? 0.f : 1.f / line.scale; }
  __device__ static float coded(float v, const Line& line, float inverse) { return floorf(fminf(fmaxf((v - line.bias) * inverse + 0.5f, 0.f), top)); }

  __device__ static Line first_guess(float low, float high) {
    if constexpr (symmetric) return line_of((-low > high ? low : high) / -middle, 0.f);
    else return line_of((high - low) / top, low);
  }

  __device__ Fit fit(const Line& line) const {
    const float inverse = inverse_of(line);
    float c1 = 0.f, c2 = 0.f, x1 = 0.f, cx = 0.f, error = 0.f;
#pragma unroll
    for (int j = 0; j < share; ++j) {
      const float code = coded(x[j], line, inverse), c = symmetric ? code - middle : code;
      const float miss = x[j] - (line.scale * code + line.bias);
      c1 += c, c2 += c * c, x1 += x[j], cx += c * x[j], error += miss * miss;
    }
    if (!active) c1 = c2 = x1 = cx = error = 0.f;
    c2 = sum_over_warp(c2), cx = sum_over_warp(cx), error = sum_over_warp(error);
    if constexpr (symmetric) {
      return {error, c2 > 0.f ? line_of(cx / c2, 0.f) : line};
    } else {
      c1 = sum_over_warp(c1), x1 = sum_over_warp(x1);
      const float spread = group * c2 - c1 * c1;
      if (!(spread > 0.f)) return {error, line};
      const float scale = (group * cx - c1 * x1) / spread;
      return {error, line_of(scale, (x1 - scale * c1) / group)};
    }
  }

  // row: (group) and packed in shared memory; all lanes call.
  __device__ void encode(const float* row, Packed& packed, int lane) {
    active = lane < group / share;
    float low = INFINITY, high = -INFINITY;
#pragma unroll
    for (int j = 0; j < share; ++j) {
      x[j] = active ? row[lane * share + j] : 0.f;
      if (active) low = fminf(low, x[j]), high = fmaxf(high, x[j]);
    }
    low = -max_over_warp(-low);
    high = max_over_warp(high);
    Line line = first_guess(low, high);
    constexpr int rounds = AffineCodec<bits, group, symmetric>::rounds;
    if constexpr (rounds > 0) {
      Line best = line;
      float least = 0.f;
      for (int round = 0; round < rounds; ++round) {
        const Fit fitted = fit(line);
        if (round == 0 || fitted.error < least) least = fitted.error, best = line;
        line = fitted.better;
      }
      line = best;
    }
    const float inverse = inverse_of(line);
    if (active) {
#pragma unroll
      for (int j = 0; j < share; j += 2) {
        const int a = static_cast<int>(coded(x[j], line, inverse)), b = static_cast<int>(coded(x[j + 1], line, inverse));
        if constexpr (bits == 8) packed.codes[lane * share + j] = a, packed.codes[lane * share + j + 1] = b;
        else packed.codes[(lane * share + j) / 2] = a | b << 4;
      }
    }
    if (lane == 0) {
      packed.scale.bits = __half_as_ushort(__float2half_rn(line.scale));
      if constexpr (!symmetric) packed.bias.bits = __half_as_ushort(__float2half_rn(line.bias));
    }
  }
};

}  // namespace lmkit::kernels::cuda
