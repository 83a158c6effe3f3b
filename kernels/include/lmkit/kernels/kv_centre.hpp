// SPDX-License-Identifier: Apache-2.0
//
// Centred keys: a block's keys are stored as differences from the mean key of the block before it in the sequence.
//
// Keys of a head share a large common part, which few bits would be wasted on. A softmax does not change when every
// score gets the same constant, and here all scores of one block get the same one, q . mean, which is added back:
//     q . k_t = q . (k_t - mean) + q . mean
// so nothing but the range that the codes must span is lost, and no token is read twice. (That keys have such a part and
// that softmax does not mind it is the observation behind SageAttention's smoothing, arXiv:2410.02367.)
//
// Each block keeps the running mean of its own keys, rotated as they are stored, head_dim halves in a strip behind
// the codes. The mean is rounded to half at every token, in the order of positions, so it does not depend on how a prompt
// was cut into chunks. Keys of a sequence's first block are stored as they are.
//
// On SmolLM2-135M at 4 bits this halves the divergence that coded keys cause (kernels/README.md).
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/kernels/kv_simd.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {
namespace {

inline constexpr int centre_step = 16;  // divides head_dim: whole vectors of any instruction set

// Bytes of the strip.
LMKIT_HD constexpr std::int64_t centre_bytes(int head_dim) noexcept { return 2 * head_dim; }

// The block's `slot`-th key joins its mean. x: (head_dim)
template <class Isa>
LMKIT_HD void add_to_centre(std::byte* strip, int slot, const float* x, int head_dim) noexcept {
  using V = Simd<Isa>;
  const float share = 1.f / static_cast<float>(slot + 1);
  for (int i = 0; i < head_dim; i += V::lanes) {
    const typename V::F before = slot == 0 ? V::load(x + i) : V::load_half(strip + 2 * i);
    const typename V::F mean = V::fma(V::load(x + i) - before, V::set1(share), before);
    V::store_half(strip + 2 * i, mean > 65504.f ? V::set1(65504.f) : mean < -65504.f ? V::set1(-65504.f) : mean);
  }
}

template <class Isa>
LMKIT_HD void subtract_centre(const std::byte* strip, float* x, int head_dim) noexcept {
  using V = Simd<Isa>;
  for (int i = 0; i < head_dim; i += V::lanes) V::store(x + i, V::load(x + i) - V::load_half(strip + 2 * i));
}

// q . mean
template <class Isa>
LMKIT_HD float dot_centre(const std::byte* strip, const float* q, int head_dim) noexcept {
  using V = Simd<Isa>;
  typename V::F sum{};
  for (int i = 0; i < head_dim; i += V::lanes) sum = V::fma(V::load(q + i), V::load_half(strip + 2 * i), sum);
  return V::sum(sum);
}

}  // namespace
}  // namespace lmkit::kernels
