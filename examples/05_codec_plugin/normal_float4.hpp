// SPDX-License-Identifier: Apache-2.0
//
// 4-bit normal floats (QLoRA, arXiv:2305.14314). 32 values share a scale, their greatest magnitude; each is stored as the
// nearest of 16 levels, which lie as dense as normally distributed values do. 18 bytes for 32 values.
//
// The levels are not evenly spaced, so the codec is not foldable: attention decodes each value with decode() below, inlined
// into the kernels, on the CPU and on a GPU.
#pragma once

#include <lmkit/concepts/kv_codec.hpp>

struct NormalFloat4 {
  static constexpr int group = 32;

  struct Packed {
    std::uint8_t codes[group / 2];
    lmkit::Half scale;
  };

  LMKIT_HD static constexpr float level(int code) noexcept {
    constexpr float levels[16] = {-1.f,        -0.6961928f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f, 0.f,
                                  0.0795803f,  0.1609302f,  0.24611230f,  0.33791524f,  0.44070983f,  0.56261700f,  0.72295684f,  1.f};
    return levels[code];
  }

  LMKIT_HD Packed encode(const lmkit::Vec<float, group>& x) const noexcept {
    float most = 0.f;
    for (int i = 0; i < group; ++i) most = __builtin_fmaxf(most, __builtin_fabsf(x[i]));
    Packed packed{};
    packed.scale = lmkit::to_half(__builtin_fminf(most, 65504.f));
    const float inverse = most > 0.f ? 1.f / most : 0.f;
    for (int i = 0; i < group; ++i) {
      int code = 0;  // levels whose lower border x has passed
      for (int next = 1; next < 16; ++next) code += x[i] * inverse > 0.5f * (level(next - 1) + level(next));
      packed.codes[i / 2] = static_cast<std::uint8_t>(packed.codes[i / 2] | code << 4 * (i % 2));
    }
    return packed;
  }

  LMKIT_HD lmkit::Vec<float, group> decode(const Packed& packed) const noexcept {
    const float scale = lmkit::to_float(packed.scale);
    lmkit::Vec<float, group> x{};
    for (int i = 0; i < group; ++i) x[i] = scale * level(packed.codes[i / 2] >> 4 * (i % 2) & 15);
    return x;
  }
};
