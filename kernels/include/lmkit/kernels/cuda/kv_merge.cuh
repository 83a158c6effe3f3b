// SPDX-License-Identifier: Apache-2.0
//
// The end of decode attention: parts of a query's row are added up in order, rotated values turned back, and the row is
// stored. A warp does this for one query at a time; a part is read once, 4 (head_dim + 4) bytes a query.
#pragma once

#include <lmkit/kernels/cuda/hadamard.cuh>
#include <lmkit/kernels/cuda/kv_line.cuh>

namespace lmkit::kernels::cuda {

enum class PartsFrom { block, grid };  // who wrote the parts: warps of this block, or blocks of this launch

template <int head_dim>
struct MergedRow {
  static constexpr int share = (head_dim / 4 + warp_size - 1) / warp_size;
  float4 out[share];  // of a lane: dimensions 4 (lane + 32 n) ..
  float maximum, sum;

  // sum over n of 2^(maximum_n - overall) out_n, and of the same sums. part(n): row n of `parts`
  template <PartsFrom from, class Part>
  __device__ __forceinline__ void add_up(int parts, const Part& part, int lane) {
    constexpr int batch = from == PartsFrom::block ? 4 : 16 / share;  // loads of a lane that are under way at once
    maximum = -INFINITY, sum = 0.f;
#pragma unroll
    for (int d = 0; d < share; ++d) out[d] = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 1
    for (int base = 0; base < parts; base += batch) {
      const int count = min(batch, parts - base);
      float4 x[batch][share];
#pragma unroll
      for (int n = 0; n < batch; ++n)
        if (n < count) load<from>(part(base + n), x[n], lane);
      float2 mine = make_float2(-INFINITY, 0.f);
      if (lane < count) {
        const auto* end = reinterpret_cast<const float2*>(part(base + lane) + head_dim);
        mine = from == PartsFrom::grid ? __ldcg(end) : *end;
      }
      const float larger = fmaxf(maximum, max_over_columns(max_over_rows(mine.x)));
      const float shrink = exp2_approx(maximum - larger), factor = exp2_approx(mine.x - larger);
      maximum = larger;
      sum = sum * shrink + sum_over_columns(sum_over_rows(factor * mine.y));
#pragma unroll
      for (int d = 0; d < share; ++d) out[d].x *= shrink, out[d].y *= shrink, out[d].z *= shrink, out[d].w *= shrink;
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        if (n >= count) break;
        const float weight = __shfl_sync(full_warp, factor, n);
#pragma unroll
        for (int d = 0; d < share; ++d) {
          out[d].x += weight * x[n][d].x, out[d].y += weight * x[n][d].y;
          out[d].z += weight * x[n][d].z, out[d].w += weight * x[n][d].w;
        }
      }
    }
  }

  template <PartsFrom from>
  __device__ __forceinline__ static void load(const float* row, float4 (&x)[share], int lane) {
#pragma unroll
    for (int d = 0; d < share; ++d) {
      const int at = d * warp_size + lane;
      if (4 * at >= head_dim) continue;
      const auto* four = reinterpret_cast<const float4*>(row) + at;
      x[d] = from == PartsFrom::grid ? __ldcg(four) : *four;
    }
  }

  // As a part of a longer item.
  __device__ __forceinline__ void write(float* row, int lane) const {
    each_four(lane, [&](int at, const float4& x) { reinterpret_cast<float4*>(row)[at] = x; });
    if (lane == 0) *reinterpret_cast<float2*>(row + head_dim) = make_float2(maximum, sum);
  }

  // As a head of the result. turned: (head_dim) in shared memory, the warp's own
  __device__ __forceinline__ void store(const KvView& view, std::uint16_t* head, float* turned, int lane) {
    const float scale = 1.f / sum;
#pragma unroll
    for (int d = 0; d < share; ++d) out[d].x *= scale, out[d].y *= scale, out[d].z *= scale, out[d].w *= scale;
    if (view.hadamard) {
      each_four(lane, [&](int at, const float4& x) { reinterpret_cast<float4*>(turned)[at] = x; });
      __syncwarp();
      hadamard_warp<head_dim>(turned, lane);
      load<PartsFrom::block>(turned, out, lane);
      __syncwarp();
    }
    each_four(lane, [&](int at, const float4& x) {
      reinterpret_cast<uint2*>(head)[at] = make_uint2(store2(x.x, x.y, view.is_bf16), store2(x.z, x.w, view.is_bf16));
    });
  }

  template <class Use>
  __device__ __forceinline__ void each_four(int lane, const Use& use) const {
#pragma unroll
    for (int d = 0; d < share; ++d)
      if (4 * (d * warp_size + lane) < head_dim) use(d * warp_size + lane, out[d]);
  }
};

}  // namespace lmkit::kernels::cuda
