// SPDX-License-Identifier: Apache-2.0
//
// Codecs that reach corners of the kernels the plugins' own do not: several groups a head, 4 bits without and 8 bits with
// a bias, and a codec that is not foldable.
#pragma once

#include <lmkit/kernels/affine_codec.hpp>
#include <lmkit/kernels/cuda/cuda_kv.hpp>

#include <cmath>

namespace lmkit::kernels::cuda {

// Eight bits of the value's square root, so that small values keep more of their precision.
struct SquareRootCodec {
  static constexpr int group = 16;
  struct Packed {
    float largest;
    std::int8_t roots[group];
  };
  LMKIT_HD Packed encode(const Vec<float, group>& x) const noexcept {
    Packed packed;
    packed.largest = 0.f;
    for (int i = 0; i < group; ++i) packed.largest = std::fmax(packed.largest, std::fabs(x[i]));
    const float inverse = packed.largest > 0.f ? 1.f / packed.largest : 0.f;
    for (int i = 0; i < group; ++i) {
      const float root = 127.f * std::sqrt(std::fabs(x[i]) * inverse) + 0.5f;
      packed.roots[i] = static_cast<std::int8_t>(x[i] < 0.f ? -root : root);
    }
    return packed;
  }
  LMKIT_HD Vec<float, group> decode(const Packed& packed) const noexcept {
    Vec<float, group> x{};
    for (int i = 0; i < group; ++i) {
      const float root = packed.roots[i] / 127.f;
      x[i] = root * std::fabs(root) * packed.largest;
    }
    return x;
  }
};

static_assert(KvCodec<SquareRootCodec> && !FoldableKvCodec<SquareRootCodec>);

extern const KvKernels* const test_kernels[7];  // in test_codecs.cu; the order of kv_test.cpp's cases

}  // namespace lmkit::kernels::cuda
