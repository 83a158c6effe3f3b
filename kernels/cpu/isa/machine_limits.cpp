// SPDX-License-Identifier: Apache-2.0
#include "../machine_limits_kernels.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace lmkit::kernels {
namespace {

// Vectors of 64 bytes in the compiler's own notation: one, two or four registers.
typedef std::uint64_t Words __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
typedef std::int16_t Shorts __attribute__((vector_size(64)));

// The compiler must believe that the value is used, and may be another afterwards.
template <class T>
void keep(T& value) noexcept {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(value));
#else
  asm volatile("" : "+m"(value));
#endif
}

void read(const std::byte* data, std::int64_t bytes) noexcept {
  const auto* in = reinterpret_cast<const Words*>(data);
  Words a{}, b{}, c{}, d{};
  for (std::int64_t i = 0; i < bytes / 64; i += 4) {
    a |= in[i];
    b |= in[i + 1];
    c |= in[i + 2];
    d |= in[i + 3];
  }
  Words all = a | b | c | d;
  keep(all);
}

constexpr int chains = 10;  // independent sums: more than latency times throughput of two units

#if defined(__AVX512VNNI__)
double int8_operations(std::int64_t rounds) noexcept {
  __m512i sums[chains] = {}, weights = _mm512_set1_epi8(3), values = _mm512_set1_epi8(5);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, weights, values);
      keep(sum);
    }
  return 2.0 * 64 * chains * static_cast<double>(rounds);
}
#elif defined(__AVX2__)
double int8_operations(std::int64_t rounds) noexcept {
  __m256i sums[chains] = {}, weights = _mm256_set1_epi8(3), values = _mm256_set1_epi8(5);
  for (std::int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(weights));  // so that the product is not taken out of the loop
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(values));
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
      asm volatile("" : "+x"(sum));
    }
  }
  return 2.0 * 32 * chains * static_cast<double>(rounds);
}
#else
double int8_operations(std::int64_t rounds) noexcept {  // SSE2 multiplies 16-bit numbers at the narrowest
  Shorts sums[2] = {}, weights = {}, values = {};
  for (std::int64_t i = 0; i < rounds; ++i) {
    keep(weights);
    for (Shorts& sum : sums) sum += weights * values;
  }
  for (Shorts& sum : sums) keep(sum);
  return 2.0 * 32 * 2 * static_cast<double>(rounds);
}
#endif

#if defined(__AVX2__)
#if defined(__AVX512F__)
using Lanes = __m512;
Lanes multiply_add(Lanes a, Lanes b, Lanes c) noexcept { return _mm512_fmadd_ps(a, b, c); }
#else
using Lanes = __m256;
Lanes multiply_add(Lanes a, Lanes b, Lanes c) noexcept { return _mm256_fmadd_ps(a, b, c); }
#endif
double float_operations(std::int64_t rounds) noexcept {
  Lanes sums[chains] = {}, a = {}, b = {};
  for (std::int64_t i = 0; i < rounds; ++i)
    for (Lanes& sum : sums) {
      sum = multiply_add(a, b, sum);
      asm volatile("" : "+v"(sum));
    }
  return 2.0 * sizeof(Lanes) / sizeof(float) * chains * static_cast<double>(rounds);
}
#else
double float_operations(std::int64_t rounds) noexcept {
  Floats sums[2] = {}, a = {}, b = {};
  for (std::int64_t i = 0; i < rounds; ++i) {
    keep(a);
    for (Floats& sum : sums) sum += a * b;
  }
  for (Floats& sum : sums) keep(sum);
  return 2.0 * 16 * 2 * static_cast<double>(rounds);
}
#endif

}  // namespace

template <>
const LimitKernels& limit_kernels<isa::LMKIT_ISA>() noexcept {
  static constexpr LimitKernels kernels{read, int8_operations, float_operations};
  return kernels;
}

}  // namespace lmkit::kernels
