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

  // sum over n of 2^(maximum_n - overall) out_n, and of the same sums, of at most `most` rows part(n): written by warps of this block.
  template <int most, class Part>
  __device__ __forceinline__ void add_up(int parts, const Part& part, int lane) {
    float4 x[most][share];
    float2 end[most];  // maximum, sum
#pragma unroll
    for (int n = 0; n < most; ++n) {
      end[n] = make_float2(-INFINITY, 0.f);
      if (n >= parts) continue;
      const float* row = part(n);
      each_four(lane, [&](int d, int at) { x[n][d] = reinterpret_cast<const float4*>(row)[at]; });
      end[n] = *reinterpret_cast<const float2*>(row + head_dim);
    }
    maximum = end[0].x;
#pragma unroll
    for (int n = 1; n < most; ++n) maximum = fmaxf(maximum, end[n].x);
    clear();
#pragma unroll
    for (int n = 0; n < most; ++n) {
      if (n >= parts) continue;
      const float weight = exp2_approx(end[n].x - maximum);
      sum += weight * end[n].y;
      add(weight, x[n]);
    }
  }

  // The same of any number of rows, written by blocks of this launch.
  template <class Part>
  __device__ __forceinline__ void add_up_far(int parts, const Part& part, int lane) {
    constexpr int batch = 16 / share;  // loads of a lane that are under way at once
    maximum = -INFINITY;
    clear();
#pragma unroll 1
    for (int base = 0; base < parts; base += batch) {
      const int count = min(batch, parts - base);
      float4 x[batch][share];
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        const float* row = part(base + min(n, count - 1));
        each_four(lane, [&](int d, int at) { x[n][d] = __ldcg(reinterpret_cast<const float4*>(row) + at); });
      }
      // lane n, and every batch-th lane from it on: of row n
      float2 mine = __ldcg(reinterpret_cast<const float2*>(part(base + min(lane % batch, count - 1)) + head_dim));
      if (lane % batch >= count) mine = make_float2(-INFINITY, 0.f);
      float larger = mine.x, total;
#pragma unroll
      for (int d = 1; d < batch; d *= 2) larger = fmaxf(larger, __shfl_xor_sync(full_warp, larger, d));
      larger = fmaxf(larger, maximum);
      const float shrink = exp2_approx(maximum - larger), factor = exp2_approx(mine.x - larger);
      maximum = larger;
      total = factor * mine.y;
#pragma unroll
      for (int d = 1; d < batch; d *= 2) total += __shfl_xor_sync(full_warp, total, d);
      sum = sum * shrink + total;
      scale(shrink);
#pragma unroll
      for (int n = 0; n < batch; ++n) add(__shfl_sync(full_warp, factor, n), x[n]);
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
  __device__ __forceinline__ void clear() {
    sum = 0.f;
#pragma unroll
    for (int d = 0; d < share; ++d) out[d] = make_float4(0.f, 0.f, 0.f, 0.f);
  }
  __device__ __forceinline__ void scale(float by) {
#pragma unroll
    for (int d = 0; d < share; ++d) out[d].x *= by, out[d].y *= by, out[d].z *= by, out[d].w *= by;
  }
  __device__ __forceinline__ void add(float weight, const float4 (&x)[share]) {
#pragma unroll
    for (int d = 0; d < share; ++d) {
      out[d].x += weight * x[d].x, out[d].y += weight * x[d].y;
      out[d].z += weight * x[d].z, out[d].w += weight * x[d].w;
    }
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
