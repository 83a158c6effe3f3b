// SPDX-License-Identifier: Apache-2.0
//
// AffineCodec::encode by a warp, or by a half or a quarter of one: the same guess, rounds of least squares and choice as
// ../affine_codec.hpp explains, with a group's values spread over the lanes. A group of 128 takes one thread 35 us at 4 bits, longer
// than attention at batch 1. A quarter of a warp takes longer than a warp, but less of the multiprocessor, which does what lanes
// have in common for four groups at once. Both give the same bits: sums are added up in the same order.
#pragma once

#include <lmkit/kernels/affine_codec.hpp>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

// How `lanes` lanes encode a group: this finds nothing, so that kernels let one thread call the codec's encode.
template <class Codec, int lanes>
struct WarpEncoder {
  static constexpr bool exists = false;
};

template <int bits, int group, bool symmetric, int lanes>
  requires(group % 4 == 0 && group >= 32 && (group <= 128 || group == 256))
struct WarpEncoder<AffineCodec<bits, group, symmetric>, lanes> {
  static constexpr bool exists = true;
  using Packed = typename AffineCodec<bits, group, symmetric>::Packed;
  static constexpr int share = group <= 64 && group % 32 == 0 ? 2 : group <= 128 ? 4 : group / 32;  // values of a piece, one of 32
  static constexpr int pieces = warp_size / lanes;                                                 // of a lane
  static constexpr float top = (1 << bits) - 1, middle = 1 << (bits - 1);
  static constexpr int rounds = AffineCodec<bits, group, symmetric>::rounds;

  struct Line {
    float scale, bias;
  };
  struct Fit {
    float error;
    Line better;
  };

  float x[pieces][share];
  bool active[pieces];  // the last pieces of a group that 32 does not divide hold nothing
  float x1;             // the sum of the group

  __device__ static int piece_of(int lane, int n) { return lane / 4 * (4 * pieces) + 4 * n + lane % 4; }

  // Over the pieces of a group by 4, 8, 16, 1 and 2 apart: those of a lane come first.
  template <class Add>
  __device__ static float over_pieces(const float (&part)[pieces], Add add) {
    float all = part[0];
    if constexpr (pieces == 2) all = add(part[0], part[1]);
    if constexpr (pieces == 4) all = add(add(part[0], part[1]), add(part[2], part[3]));
#pragma unroll
    for (int apart = 4; apart < lanes; apart *= 2) all = add(all, __shfl_xor_sync(full_warp, all, apart));
    all = add(all, __shfl_xor_sync(full_warp, all, 1));
    return add(all, __shfl_xor_sync(full_warp, all, 2));
  }
  __device__ static float sum(const float (&part)[pieces]) {
    return over_pieces(part, [](float a, float b) { return a + b; });
  }
  __device__ static std::uint32_t sum(std::uint32_t x) {
    if constexpr (lanes == warp_size) {
      return __reduce_add_sync(full_warp, x);
    } else {
#pragma unroll
      for (int apart = 1; apart < lanes; apart *= 2) x += __shfl_xor_sync(full_warp, x, apart);
      return x;
    }
  }

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

  // Sums of codes and of their squares are whole numbers below 2^16: one word, exact in any order.
  static_assert(rounds == 0 || group * top * top < 65536);
  __device__ Fit fit(const Line& line) const {
    const float inverse = inverse_of(line);
    std::uint32_t codes = 0;  // sum | sum of squares << 16
    float cx[pieces] = {}, error[pieces] = {};
#pragma unroll
    for (int n = 0; n < pieces; ++n) {
      std::uint32_t of_piece = 0;
#pragma unroll
      for (int j = 0; j < share; ++j) {
        const float code = coded(x[n][j], line, inverse), c = symmetric ? code - middle : code;
        const float miss = x[n][j] - (line.scale * code + line.bias);
        const int whole = static_cast<int>(c);
        of_piece += (symmetric ? 0 : whole) + (whole * whole << 16);
        cx[n] += c * x[n][j], error[n] += miss * miss;
      }
      if (active[n]) codes += of_piece;
      else cx[n] = error[n] = 0.f;
    }
    codes = sum(codes);
    const float all_cx = sum(cx), all_error = sum(error), c2 = static_cast<float>(codes >> 16);
    if constexpr (symmetric) {
      return {all_error, c2 > 0.f ? line_of(all_cx / c2, 0.f) : line};
    } else {
      const float c1 = static_cast<float>(codes & 0xffff);
      const float spread = group * c2 - c1 * c1;
      const float scale = fmaf(-c1, x1, group * all_cx) / spread;  // not as the compiler likes it: the same bits for any number of lanes
      return {all_error, spread > 0.f ? line_of(scale, fmaf(-scale, c1, x1) / group) : line};
    }
  }

  // row: (group) and packed in shared memory; lane in [0, lanes). The whole warp calls.
  __device__ void encode(const float* row, Packed& packed, int lane) {
    float low[pieces], high[pieces], part[pieces] = {};
#pragma unroll
    for (int n = 0; n < pieces; ++n) {
      const int piece = piece_of(lane, n);
      active[n] = piece < group / share;
      low[n] = INFINITY, high[n] = -INFINITY;
#pragma unroll
      for (int j = 0; j < share; ++j) {
        x[n][j] = active[n] ? row[piece * share + j] : 0.f;
        part[n] += x[n][j];
        if (active[n]) low[n] = fminf(low[n], x[n][j]), high[n] = fmaxf(high[n], x[n][j]);
      }
    }
    Line line = first_guess(over_pieces(low, fminf), over_pieces(high, fmaxf));
    if constexpr (rounds > 0) {
      if constexpr (!symmetric) x1 = sum(part);
      Line best = line;
      float least = 0.f;
#pragma unroll(lanes == warp_size ? 1 : rounds)  // the last needs no better line; decodes, by whole warps, are short of registers
      for (int round = 0; round < rounds; ++round) {
        const Fit fitted = fit(line);
        if (round == 0 || fitted.error < least) least = fitted.error, best = line;
        line = fitted.better;
      }
      line = best;
    }
    const float inverse = inverse_of(line);
#pragma unroll
    for (int n = 0; n < pieces; ++n)
      if (active[n]) {
        const int first = piece_of(lane, n) * share;
#pragma unroll
        for (int j = 0; j < share; j += 2) {
          const int a = static_cast<int>(coded(x[n][j], line, inverse)), b = static_cast<int>(coded(x[n][j + 1], line, inverse));
          if constexpr (bits == 8) packed.codes[first + j] = a, packed.codes[first + j + 1] = b;
          else packed.codes[(first + j) / 2] = a | b << 4;
        }
      }
    if (lane == 0) {
      packed.scale.bits = __half_as_ushort(__float2half_rn(line.scale));
      if constexpr (!symmetric) packed.bias.bits = __half_as_ushort(__float2half_rn(line.bias));
    }
  }
};

}  // namespace lmkit::kernels::cuda
