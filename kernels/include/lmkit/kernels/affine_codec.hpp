// SPDX-License-Identifier: Apache-2.0
//
// AffineCodec: a FoldableKvCodec with one half-precision scale, and one bias unless symmetric, per group.
//
//     value = scale * code + bias               symmetric: bias = -scale * 2^(Bits-1)
//
// The first guess spans the group's least and greatest value. With 4 bits that guess is then improved: codes and line are
// fitted to each other by least squares in turn, and the best of all rounds is kept. On normally distributed groups of 64
// six rounds take 12 % off the squared error (tests/plugins).
#pragma once

#include <lmkit/concepts/kv_codec.hpp>

#include <cstdint>

// Lets the compiler use vectors for a loop that sums; the order of the sums is then the instruction set's.
#if defined(LMKIT_ISA)
#define LMKIT_PRAGMA(text) _Pragma(#text)
#define LMKIT_SIMD(clauses) LMKIT_PRAGMA(omp simd clauses)
#else
#define LMKIT_SIMD(clauses)
#endif

namespace lmkit::kernels {

template <int Bits, int Group, bool Symmetric>
struct AffineCodec {
  static constexpr int bits = Bits;
  static constexpr int group = Group;
  static constexpr bool symmetric = Symmetric;
  static constexpr int code_bytes = Group * Bits / 8;
  static constexpr float top = (1 << Bits) - 1;         // greatest code
  static constexpr float middle = 1 << (Bits - 1);      // code of 0 when symmetric
  static constexpr int rounds = Bits < 8 ? 6 : 0;       // of least squares

  struct SymmetricPacked {
    std::uint8_t codes[code_bytes];
    Half scale;
  };
  struct BiasedPacked {
    std::uint8_t codes[code_bytes];
    Half scale, bias;
  };
  using Packed = std::conditional_t<Symmetric, SymmetricPacked, BiasedPacked>;

  LMKIT_HD Packed encode(const Vec<float, Group>& x) const noexcept {
    Line line = first_guess(x);
    Line best = line;
    if constexpr (rounds > 0) {
      float least = 0.f;
      for (int round = 0; round < rounds; ++round) {
        const Fit fitted = fit(x, line);
        if (round == 0 || fitted.error < least) {
          least = fitted.error;
          best = line;
        }
        line = fitted.better;
      }
    }
    return pack(x, best);
  }

  LMKIT_HD Vec<float, Group> decode(const Packed& packed) const noexcept {
    const Line line = line_of(packed);
    Vec<float, Group> x{};
    for (int i = 0; i < Group; ++i) x[i] = line.scale * static_cast<float>(code_of(packed, i)) + line.bias;
    return x;
  }

 private:
  struct Line {
    float scale, bias;  // as they read back from half precision
  };
  struct Fit {
    float error;  // squared, of x coded along a line
    Line better;  // the least-squares line through those codes
  };

  LMKIT_HD static float at_half(float x) noexcept { return to_float(to_half(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x)); }

  LMKIT_HD static Line line_of(float scale, float bias) noexcept {
    scale = at_half(scale);
    return {scale, Symmetric ? -scale * middle : at_half(bias)};
  }

  LMKIT_HD static Line line_of(const Packed& packed) noexcept {
    const float scale = to_float(packed.scale);
    if constexpr (Symmetric) return {scale, -scale * middle};
    else return {scale, to_float(packed.bias)};
  }

  // Through the ends of the group's values.
  LMKIT_HD static Line first_guess(const Vec<float, Group>& x) noexcept {
    float low = x[0], high = x[0];
    LMKIT_SIMD(reduction(min : low) reduction(max : high))
    for (int i = 0; i < Group; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
    }
    if constexpr (Symmetric) {  // the value furthest from 0 takes code 0, the only one without an opposite
      return line_of((-low > high ? low : high) / -middle, 0.f);
    } else {
      return line_of((high - low) / top, low);
    }
  }

  LMKIT_HD static float coded(float x, const Line& line, float inverse) noexcept {
    float code = (x - line.bias) * inverse + 0.5f;
    code = code > 0.f ? code : 0.f;
    code = code < top ? code : top;
    return static_cast<float>(static_cast<std::int32_t>(code));
  }

  LMKIT_HD static float inverse_of(const Line& line) noexcept { return line.scale == 0.f ? 0.f : 1.f / line.scale; }

  LMKIT_HD static Fit fit(const Vec<float, Group>& x, const Line& line) noexcept {
    const float inverse = inverse_of(line);
    float c1 = 0.f, c2 = 0.f, x1 = 0.f, cx = 0.f, error = 0.f;
    LMKIT_SIMD(reduction(+ : c1, c2, x1, cx, error))
    for (int i = 0; i < Group; ++i) {
      const float code = coded(x[i], line, inverse);
      const float c = Symmetric ? code - middle : code;
      const float miss = x[i] - (line.scale * code + line.bias);
      c1 += c;
      c2 += c * c;
      x1 += x[i];
      cx += c * x[i];
      error += miss * miss;
    }
    constexpr float n = Group;
    if constexpr (Symmetric) {
      return {error, c2 > 0.f ? line_of(cx / c2, 0.f) : line};
    } else {
      const float spread = n * c2 - c1 * c1;
      if (!(spread > 0.f)) return {error, line};
      const float scale = (n * cx - c1 * x1) / spread;
      return {error, line_of(scale, (x1 - scale * c1) / n)};
    }
  }

  LMKIT_HD static Packed pack(const Vec<float, Group>& x, const Line& line) noexcept {
    const float inverse = inverse_of(line);
    std::uint8_t codes[Group];
    for (int i = 0; i < Group; ++i) codes[i] = static_cast<std::uint8_t>(coded(x[i], line, inverse));
    Packed packed;
    if constexpr (Bits == 8)
      for (int i = 0; i < Group; ++i) packed.codes[i] = codes[i];
    else
      for (int i = 0; i < Group / 2; ++i) packed.codes[i] = static_cast<std::uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
    packed.scale = to_half(line.scale);
    if constexpr (!Symmetric) packed.bias = to_half(line.bias);
    return packed;
  }

  LMKIT_HD static int code_of(const Packed& packed, int i) noexcept {
    if constexpr (Bits == 8) return packed.codes[i];
    else return packed.codes[i / 2] >> 4 * (i % 2) & 15;
  }
};

static_assert(FoldableKvCodec<AffineCodec<8, 64, true>> && FoldableKvCodec<AffineCodec<4, 64, false>>);

}  // namespace lmkit::kernels
