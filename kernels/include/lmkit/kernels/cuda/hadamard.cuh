// SPDX-License-Identifier: Apache-2.0
//
// The fast Walsh-Hadamard transform of a row in shared memory by one warp; the same rotation as ../hadamard.hpp, which
// says why. Its own inverse.
#pragma once

#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

// Runs of head_dim's largest power-of-two factor are rotated one by one.
constexpr int hadamard_run_of(int head_dim) { return head_dim & -head_dim; }

// x: (head_dim) in shared memory, written before a __syncwarp; all lanes call.
template <int head_dim>
__device__ __forceinline__ void hadamard_warp(float* x, int lane) {
  constexpr int run = hadamard_run_of(head_dim);
  const float norm = rsqrtf(static_cast<float>(run));
#pragma unroll
  for (int step = 1; step < run; step *= 2) {
    for (int n = lane; n < head_dim / 2; n += warp_size) {
      const int at = n / step * 2 * step + n % step;
      const float a = x[at], b = x[at + step];
      const float scale = step * 2 == run ? norm : 1.f;
      x[at] = (a + b) * scale;
      x[at + step] = (a - b) * scale;
    }
    __syncwarp();
  }
}

}  // namespace lmkit::kernels::cuda
