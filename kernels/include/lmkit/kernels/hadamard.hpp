// SPDX-License-Identifier: Apache-2.0
//
// hadamard_row: the fast Walsh-Hadamard transform of one head, in place and normalised, so that it is its own inverse
// and keeps dot products. It spreads an outlier over the whole head, which is what makes 4-bit keys work
// (QuaRot, arXiv:2404.00456). Costs n log2(n) additions.
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/kernels/kv_simd.hpp>

namespace lmkit::kernels {
namespace {

// A head is rotated in runs of its largest power-of-two factor: 64 and 128 as a whole, 80 in runs of 16, 96 of 32.
LMKIT_HD constexpr int hadamard_run(int head_dim) noexcept { return head_dim & -head_dim; }

// One butterfly between lanes of a register: (a, b) -> (a + b, a - b) for lanes Stride apart.
template <class V, int Stride>
LMKIT_HD typename V::F butterfly_lanes(typename V::F x) noexcept {
  typename V::F sign = V::set1(1.f);
  for (int i = 0; i < V::lanes; ++i)
    if (i & Stride) sign[i] = -1.f;
  return V::template swap<Stride>(x) + x * sign;
}

template <class Isa>
LMKIT_HD void hadamard_row(float* x, int head_dim) noexcept {
  using V = Simd<Isa>;
  using F = typename V::F;
  const int run = hadamard_run(head_dim);
  const float norm = 1.f / __builtin_sqrtf(static_cast<float>(run));
  if (run < V::lanes) {
    for (int step = 1; step < run; step *= 2)
      for (int i = 0; i < head_dim; ++i)
        if (!(i & step)) {
          const float a = x[i], b = x[i + step];
          x[i] = a + b;
          x[i + step] = a - b;
        }
    for (int i = 0; i < head_dim; ++i) x[i] *= norm;
    return;
  }
  for (int i = 0; i < head_dim; i += V::lanes) {
    F y = V::load(x + i);
    y = butterfly_lanes<V, 1>(y);
    y = butterfly_lanes<V, 2>(y);
    if constexpr (V::lanes > 4) y = butterfly_lanes<V, 4>(y);
    if constexpr (V::lanes > 8) y = butterfly_lanes<V, 8>(y);
    V::store(x + i, y * norm);
  }
  for (int step = V::lanes; step < run; step *= 2)
    for (int begin = 0; begin < head_dim; begin += 2 * step)
      for (int i = begin; i < begin + step; i += V::lanes) {
        const F a = V::load(x + i), b = V::load(x + i + step);
        V::store(x + i, a + b);
        V::store(x + i + step, a - b);
      }
}

}  // namespace
}  // namespace lmkit::kernels
