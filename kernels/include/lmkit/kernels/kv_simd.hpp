// SPDX-License-Identifier: Apache-2.0
//
// Simd<Isa>: the few vector operations the KV kernels are written in, as compiler vectors with intrinsics where the
// language has no word (fused multiply-add, half precision). The baseline is plain compiler vectors and builds on any CPU.
// Elements (F32, F16, U8, U4) say how a run of stored values becomes float vectors.
//
// Only for files compiled once per instruction set (see lmkit_add_isa_kernels).
#pragma once

#include <lmkit/base/half.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12: its own headers start some intrinsics from an undefined value
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace lmkit::kernels {
namespace {

// Vectors of floats, integers and bytes with as many lanes. (The attribute does not take a dependent size.)
template <int Lanes>
struct VectorTypes;

template <>
struct VectorTypes<4> {
  typedef float F __attribute__((vector_size(16)));
  typedef std::int32_t I __attribute__((vector_size(16)));
  typedef std::uint8_t B __attribute__((vector_size(4)));
};
template <>
struct VectorTypes<8> {
  typedef float F __attribute__((vector_size(32)));
  typedef std::int32_t I __attribute__((vector_size(32)));
  typedef std::uint8_t B __attribute__((vector_size(8)));
};
template <>
struct VectorTypes<16> {
  typedef float F __attribute__((vector_size(64)));
  typedef std::int32_t I __attribute__((vector_size(64)));
  typedef std::uint8_t B __attribute__((vector_size(16)));
};

template <int Lanes>
struct SimdVectors {
  static constexpr int lanes = Lanes;
  using F = typename VectorTypes<Lanes>::F;
  using I = typename VectorTypes<Lanes>::I;
  using B = typename VectorTypes<Lanes>::B;

  LMKIT_HD static F set1(float x) noexcept { return x - F{}; }
  LMKIT_HD static F load(const float* p) noexcept {
    F x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  LMKIT_HD static void store(float* p, F x) noexcept { std::memcpy(p, &x, sizeof x); }

  // 0, 1, 2, …
  LMKIT_HD static I iota() noexcept {
    I x;
    for (int i = 0; i < Lanes; ++i) x[i] = i;
    return x;
  }

  LMKIT_HD static I bytes(const std::byte* p) noexcept {
    B x;
    std::memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, I);
  }
  LMKIT_HD static F to_float(I x) noexcept { return __builtin_convertvector(x, F); }

  // lane i becomes lane i ^ Stride
  template <int Stride>
  LMKIT_HD static F swap(F x) noexcept {
    return swap<Stride>(x, std::make_integer_sequence<int, Lanes>{});
  }

  // All lanes together, in a fixed tree.
  template <class Join>
  LMKIT_HD static float reduce(F x, Join&& join) noexcept {
    if constexpr (Lanes > 8) x = join(x, swap<8>(x));
    if constexpr (Lanes > 4) x = join(x, swap<4>(x));
    x = join(x, swap<2>(x));
    return join(x, swap<1>(x))[0];
  }
  LMKIT_HD static float sum(F x) noexcept {
    return reduce(x, [](F a, F b) __attribute__((always_inline)) { return a + b; });
  }

 private:
  template <int Stride, int... Lane>
  LMKIT_HD static F swap(F x, std::integer_sequence<int, Lane...>) noexcept {
    return __builtin_shufflevector(x, x, (Lane ^ Stride)...);
  }
};

template <class Isa>
struct Simd : SimdVectors<4> {
  static constexpr int registers = 16;
  // Accumulators side by side in a tile of `rows` rows, times Elements of so many parts: in 6 rows 12 registers.
  static constexpr int columns(int, int) noexcept { return 2; }
  LMKIT_HD static F fma(F a, F b, F c) noexcept { return a * b + c; }
  LMKIT_HD static F max2(F a, F b) noexcept { return a > b ? a : b; }
  LMKIT_HD static F load_half(const std::byte* p) noexcept {
    Half h[4];
    std::memcpy(h, p, sizeof h);
    return F{lmkit::to_float(h[0]), lmkit::to_float(h[1]), lmkit::to_float(h[2]), lmkit::to_float(h[3])};
  }
  LMKIT_HD static void store_half(std::byte* p, F x) noexcept {
    const Half h[4] = {to_half(x[0]), to_half(x[1]), to_half(x[2]), to_half(x[3])};
    std::memcpy(p, h, sizeof h);
  }
};

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
template <>
struct Simd<isa::avx2> : SimdVectors<8> {
  static constexpr int registers = 16;
  static constexpr int columns(int rows, int parts) noexcept { return rows == 1 ? 8 : rows + parts <= 4 ? 4 : 2; }
  LMKIT_HD static F fma(F a, F b, F c) noexcept { return _mm256_fmadd_ps(a, b, c); }
  LMKIT_HD static F max2(F a, F b) noexcept { return _mm256_max_ps(a, b); }
  LMKIT_HD static I bytes(const std::byte* p) noexcept {
    return reinterpret_cast<I>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  LMKIT_HD static F load_half(const std::byte* p) noexcept {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  LMKIT_HD static void store_half(std::byte* p, F x) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)
template <>
struct Simd<isa::avx512> : SimdVectors<16> {
  static constexpr int registers = 32;
  static constexpr int columns(int, int) noexcept { return 4; }
  LMKIT_HD static F fma(F a, F b, F c) noexcept { return _mm512_fmadd_ps(a, b, c); }
  LMKIT_HD static F max2(F a, F b) noexcept { return _mm512_max_ps(a, b); }
  LMKIT_HD static I bytes(const std::byte* p) noexcept {
    return reinterpret_cast<I>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  LMKIT_HD static F load_half(const std::byte* p) noexcept {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  LMKIT_HD static void store_half(std::byte* p, F x) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};
#endif

LMKIT_HD constexpr float larger(float a, float b) noexcept { return a > b ? a : b; }

// e^x for x <= 0, exact at 0, relative error below 2e-7; below -87 about 1e-38.
template <class Isa>
LMKIT_HD typename Simd<Isa>::F exp_negative(typename Simd<Isa>::F x) noexcept {
  using V = Simd<Isa>;
  using F = typename V::F;
  using I = typename V::I;
  x = V::max2(x, V::set1(-87.f));
  const F magic = V::set1(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const F rounded = V::fma(x, V::set1(1.44269504f), magic);
  const F n = rounded - magic;
  F r = V::fma(n, V::set1(-0.693359375f), x);
  r = V::fma(n, V::set1(2.12194440e-4f), r);
  F y = V::set1(1.9875691500e-4f);
  y = V::fma(y, r, V::set1(1.3981999507e-3f));
  y = V::fma(y, r, V::set1(8.3334519073e-3f));
  y = V::fma(y, r, V::set1(4.1665795894e-2f));
  y = V::fma(y, r, V::set1(1.6666665459e-1f));
  y = V::fma(y, r, V::set1(5.0000001201e-1f));
  y = V::fma(y, r * r, r) + 1.f;
  const I exponent = (reinterpret_cast<I>(rounded) - reinterpret_cast<I>(magic)) << 23;
  return reinterpret_cast<F>(reinterpret_cast<I>(y) + exponent);
}

template <class Isa>
LMKIT_HD float greatest(typename Simd<Isa>::F x) noexcept {
  using F = typename Simd<Isa>::F;
  return Simd<Isa>::reduce(x, [](F a, F b) __attribute__((always_inline)) { return Simd<Isa>::max2(a, b); });
}

template <class Isa>
LMKIT_HD float exp_negative1(float x) noexcept {
  return x == 0.f ? 1.f : exp_negative<Isa>(Simd<Isa>::set1(x))[0];
}

// Elements. A row of n values is `parts` runs of n / parts; unit i of a row gives lanes i.. of every part.
// U4: byte j holds value j in its low nibble and value j + n / 2 in its high one.

struct F32 {
  static constexpr int parts = 1;
  template <class V>
  LMKIT_HD static void load(const std::byte* row, int i, typename V::F* out) noexcept {
    out[0] = V::load(reinterpret_cast<const float*>(row) + i);
  }
  LMKIT_HD static constexpr std::int64_t row_bytes(int n) noexcept { return n * 4; }
};

struct F16 {
  static constexpr int parts = 1;
  template <class V>
  LMKIT_HD static void load(const std::byte* row, int i, typename V::F* out) noexcept {
    out[0] = V::load_half(row + 2 * i);
  }
  LMKIT_HD static constexpr std::int64_t row_bytes(int n) noexcept { return n * 2; }
};

struct U8 {
  static constexpr int parts = 1;
  template <class V>
  LMKIT_HD static void load(const std::byte* row, int i, typename V::F* out) noexcept {
    out[0] = V::to_float(V::bytes(row + i));
  }
  LMKIT_HD static constexpr std::int64_t row_bytes(int n) noexcept { return n; }
};

struct U4 {
  static constexpr int parts = 2;
  template <class V>
  LMKIT_HD static void load(const std::byte* row, int i, typename V::F* out) noexcept {
    const typename V::I x = V::bytes(row + i);
    out[0] = V::to_float(x & 15);
    out[1] = V::to_float(x >> 4);
  }
  LMKIT_HD static constexpr std::int64_t row_bytes(int n) noexcept { return n / 2; }
};

}  // namespace
}  // namespace lmkit::kernels
