// SPDX-License-Identifier: Apache-2.0
#include "../softmax_kernels.hpp"

#include <lmkit/kernels/kv_simd.hpp>

#include <cstring>

namespace lmkit::kernels {
namespace {

using Isa = isa::LMKIT_ISA;
using V = Simd<Isa>;
using F = V::F;
using I = V::I;

// The last values of a row, made up to a whole vector.
inline F load_some(const float* values, std::int64_t count, float rest) noexcept {
  float padded[V::lanes];
  for (float& value : padded) value = rest;
  std::memcpy(padded, values, static_cast<std::size_t>(count) * sizeof(float));
  return V::load(padded);
}

float largest(const float* values, std::int64_t count) noexcept {
  const F lowest = V::set1(-__builtin_inff());
  F best[2] = {lowest, lowest};
  I nan[2] = {};
  const auto look = [&](F x, int i) __attribute__((always_inline)) {
    nan[i] |= x != x;
    best[i] = V::max2(best[i], x);
  };
  std::int64_t i = 0;
  for (; i + 2 * V::lanes <= count; i += 2 * V::lanes) {
    look(V::load(values + i), 0);
    look(V::load(values + i + V::lanes), 1);
  }
  for (; i < count; i += V::lanes) look(load_some(values + i, count - i < V::lanes ? count - i : V::lanes, -__builtin_inff()), 0);
  const I any = nan[0] | nan[1];
  for (int lane = 0; lane < V::lanes; ++lane)
    if (any[lane]) return __builtin_nanf("");
  return greatest<Isa>(V::max2(best[0], best[1]));
}

// Sums of a few hundred values in float lanes, those in double.
template <class At>
double sum_of(std::int64_t count, At&& at) noexcept {
  constexpr std::int64_t run = 32 * V::lanes;
  double sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += run) {
    const std::int64_t end = begin + run < count ? begin + run : count;
    F part = V::set1(0);
    for (std::int64_t i = begin; i < end; i += V::lanes) part += at(i);
    sum += static_cast<double>(V::sum(part));
  }
  return sum;
}

double weights(const float* x, std::int64_t count, float largest, float scale, float* out) noexcept {
  const F top = V::set1(largest), slope = V::set1(scale), least = V::set1(1e-37f);
  const auto weight = [&](F value) __attribute__((always_inline)) {
    const F w = exp_negative<Isa>((value - top) * slope);
    return w < least ? V::set1(0) : w;
  };
  return sum_of(count, [&](std::int64_t i) __attribute__((always_inline)) {
    if (count - i >= V::lanes) {
      const F w = weight(V::load(x + i));
      if (out) V::store(out + i, w);
      return w;
    }
    const F w = weight(load_some(x + i, count - i, -__builtin_inff()));
    if (out) std::memcpy(out + i, &w, static_cast<std::size_t>(count - i) * sizeof(float));
    return w;
  });
}

double sum(const float* values, std::int64_t count) noexcept {
  return sum_of(count, [&](std::int64_t i) __attribute__((always_inline)) {
    return count - i >= V::lanes ? V::load(values + i) : load_some(values + i, count - i, 0);
  });
}

}  // namespace

template <>
const SoftmaxKernels& softmax_kernels<Isa>() noexcept {
  static constexpr SoftmaxKernels kernels{largest, weights, sum};
  return kernels;
}

}  // namespace lmkit::kernels
