// SPDX-License-Identifier: Apache-2.0
//
// The end of decode attention: parts of a query's row are added up in order, rotated values turned back, and the row is
// stored. A warp does this for one query at a time; a part is read once, 4 (head_dim + 4) bytes a query.
#pragma once

#include <lmkit/kernels/cuda/hadamard.cuh>
#include <lmkit/kernels/cuda/kv_line.cuh>

namespace lmkit::kernels::cuda {

template <int head_dim>
struct MergedRow {
  static constexpr int share = (head_dim / 4 + warp_size - 1) / warp_size;
  float4 out[share];  // of a lane: dimensions 4 (lane + 32 n) ..
  float maximum, sum;

  // sum over n of 2^(maximum_n - overall) out_n, and of the same sums, of rows part(n) in order; `batch` of them are loaded at once.
  // far: written by other blocks of this launch
  template <int batch, bool far = false, class Part>
  __device__ __forceinline__ void add_up(int parts, const Part& part, int lane) {
    maximum = -INFINITY, sum = 0.f;
#pragma unroll
    for (int d = 0; d < share; ++d) out[d] = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 1
    for (int base = 0; base < parts; base += batch) {
      float4 x[batch][share];
      float2 end[batch];  // maximum, sum
      float larger = maximum;
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        const float* row = part(min(base + n, parts - 1));
        each_four(lane, [&](int d, int at) { x[n][d] = load<far>(reinterpret_cast<const float4*>(row) + at); });
        end[n] = load<far>(reinterpret_cast<const float2*>(row + head_dim));
      }
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        if (base + n >= parts) end[n] = make_float2(-INFINITY, 0.f);
        larger = fmaxf(larger, end[n].x);
      }
      const float shrink = exp2_approx(maximum - larger);
      maximum = larger;
      sum *= shrink;
      scale(shrink);
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        const float weight = exp2_approx(end[n].x - maximum);
        sum += weight * end[n].y;
#pragma unroll
        for (int d = 0; d < share; ++d) {
          out[d].x += weight * x[n][d].x, out[d].y += weight * x[n][d].y;
          out[d].z += weight * x[n][d].z, out[d].w += weight * x[n][d].w;
        }
      }
    }
  }

  __device__ __forceinline__ void read(const float* row, int lane) {
    each_four(lane, [&](int d, int at) { out[d] = reinterpret_cast<const float4*>(row)[at]; });
  }
  // As a part of a longer item.
  __device__ __forceinline__ void write(float* row, int lane) const {
    each_four(lane, [&](int d, int at) { reinterpret_cast<float4*>(row)[at] = out[d]; });
    if (lane == 0) *reinterpret_cast<float2*>(row + head_dim) = make_float2(maximum, sum);
  }

  // As a head of the result. turned: (head_dim) in shared memory, the warp's own
  __device__ __forceinline__ void store(const KvView& view, std::uint16_t* head, float* turned, int lane) {
    scale(1.f / sum);
    if (view.hadamard) {
      each_four(lane, [&](int d, int at) { reinterpret_cast<float4*>(turned)[at] = out[d]; });
      __syncwarp();
      hadamard_warp<head_dim>(turned, lane);
      read(turned, lane);
      __syncwarp();
    }
    each_four(lane, [&](int d, int at) {
      reinterpret_cast<uint2*>(head)[at] = make_uint2(store2(out[d].x, out[d].y, view.is_bf16), store2(out[d].z, out[d].w, view.is_bf16));
    });
  }

 private:
  template <bool far, class T>
  __device__ __forceinline__ static T load(const T* x) {
    if constexpr (far) return __ldcg(x);
    else return *x;
  }
  __device__ __forceinline__ void scale(float by) {
#pragma unroll
    for (int d = 0; d < share; ++d) out[d].x *= by, out[d].y *= by, out[d].z *= by, out[d].w *= by;
  }
  // use(d, at): the lane's d-th four floats are the at-th of the row
  template <class Use>
  __device__ __forceinline__ static void each_four(int lane, const Use& use) {
#pragma unroll
    for (int d = 0; d < share; ++d)
      if (4 * (d * warp_size + lane) < head_dim) use(d, d * warp_size + lane);
  }
};

}  // namespace lmkit::kernels::cuda
