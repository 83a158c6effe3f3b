// SPDX-License-Identifier: Apache-2.0
//
// rope_row: rotates one head of one token by its position (RoFormer, arXiv:2104.09864), in place.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/base/host_device.hpp>

namespace lmkit::kernels {

// x: (head_dim); angles: (rotary_dim / 2, 2) cosine and sine of the token's position
LMKIT_HD void rope_row(float* x, const float* angles, int rotary_dim, int pairs) noexcept {
  if (pairs == LMKIT_ROPE_NONE) return;
  const int half = rotary_dim / 2;
  const int step = pairs == LMKIT_ROPE_ADJACENT ? 2 : 1;
  const int partner = pairs == LMKIT_ROPE_ADJACENT ? 1 : half;
  for (int i = 0; i < half; ++i) {
    const float c = angles[2 * i], s = angles[2 * i + 1];
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = a * c - b * s;
    x[i * step + partner] = a * s + b * c;
  }
}

}  // namespace lmkit::kernels
