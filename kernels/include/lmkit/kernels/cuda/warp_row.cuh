// SPDX-License-Identifier: Apache-2.0
//
// WarpRow: a row of head_dim floats, spread over the registers of a warp, and what is done to heads there: rotation by position (RoPE)
// and the fast Walsh-Hadamard transform; the same rotation as ../hadamard.hpp, which says why, and its own inverse.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

// One of a pair, turned by an angle of (cosine, sine): the first has its partner's sine with a minus. The same bits in every kernel.
__device__ __forceinline__ float turned(float x, float cosine, float partner, float sine) { return fmaf(x, cosine, __fmul_rn(partner, sine)); }

// What all lanes call; dimensions that a head_dim below 4 * 32 leaves to no lane hold anything.
template <int head_dim>
struct WarpRow {
  static constexpr int fours = (head_dim + 4 * warp_size - 1) / (4 * warp_size);  // of a lane
  float4 at[fours];                                                               // dimensions 4 (lane + 32 n) ..

  // use(n, four): the lane's n-th four dimensions are the row's four-th.
  template <class Use>
  __device__ __forceinline__ static void each_four(int lane, const Use& use) {
#pragma unroll
    for (int n = 0; n < fours; ++n)
      if (const int four = lane + n * warp_size; 4 * four < head_dim) use(n, four);
  }

  // 16-bit floats, 8-byte aligned.
  __device__ __forceinline__ void load(const std::uint16_t* row, bool is_bf16, int lane) {
    each_four(lane, [&](int n, int four) {
      const uint2 raw = reinterpret_cast<const uint2*>(row)[four];
      const float2 a = load2(raw.x, is_bf16), b = load2(raw.y, is_bf16);
      at[n] = make_float4(a.x, a.y, b.x, b.y);
    });
  }
  __device__ __forceinline__ void store(std::uint16_t* row, bool is_bf16, int lane) const {
    each_four(lane, [&](int n, int four) {
      reinterpret_cast<uint2*>(row)[four] = make_uint2(store2(at[n].x, at[n].y, is_bf16), store2(at[n].z, at[n].w, is_bf16));
    });
  }
  // Floats, 16-byte aligned.
  __device__ __forceinline__ void load(const float* row, int lane) {
    each_four(lane, [&](int n, int four) { at[n] = reinterpret_cast<const float4*>(row)[four]; });
  }
  __device__ __forceinline__ void store(float* row, int lane) const {
    each_four(lane, [&](int n, int four) { reinterpret_cast<float4*>(row)[four] = at[n]; });
  }

  // Runs of head_dim's largest power-of-two factor, one by one.
  __device__ __forceinline__ void hadamard(int lane) {
    constexpr int run = head_dim & -head_dim;
    static_assert(run >= 16 && run <= 256);
#pragma unroll
    for (int n = 0; n < fours; ++n) {
      float4& x = at[n];
      x = make_float4(x.x + x.y, x.x - x.y, x.z + x.w, x.z - x.w);
      x = make_float4(x.x + x.z, x.y + x.w, x.x - x.z, x.y - x.w);
#pragma unroll
      for (int apart = 1; apart < warp_size && 4 * apart < run; apart *= 2) {  // lanes
        const float sign = lane & apart ? -1.f : 1.f;
        x.x = fmaf(sign, x.x, __shfl_xor_sync(full_warp, x.x, apart)), x.y = fmaf(sign, x.y, __shfl_xor_sync(full_warp, x.y, apart));
        x.z = fmaf(sign, x.z, __shfl_xor_sync(full_warp, x.z, apart)), x.w = fmaf(sign, x.w, __shfl_xor_sync(full_warp, x.w, apart));
      }
    }
    if constexpr (run == 256) {
      const float4 a = at[0], b = at[1];
      at[0] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
      at[1] = make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
    }
    const float norm = rsqrtf(static_cast<float>(run));
#pragma unroll
    for (int n = 0; n < fours; ++n) at[n].x *= norm, at[n].y *= norm, at[n].z *= norm, at[n].w *= norm;
  }
};

// Rotates rows of a position, of any head.
template <int head_dim>
class WarpRope {
  using Row = WarpRow<head_dim>;

 public:
  // table: (rotary_dim / 2) cosines and sines of the position. near: (head_dim / 2), the warp's own in shared memory, 16-byte aligned
  __device__ __forceinline__ WarpRope(int pairs, int rotary_dim, const float2* table, float2* near, int lane) : pairs_(pairs), half_(rotary_dim / 2), near_(near) {
    if (pairs == LMKIT_ROPE_NONE) return;
    __syncwarp();
    for (int i = lane; i < half_; i += warp_size) near[place(i)] = table[i];
    __syncwarp();
  }

  // scratch: (head_dim), the warp's own in shared memory
  __device__ __forceinline__ void rotate(Row& row, float* scratch, int lane) const {
    if (pairs_ == LMKIT_ROPE_NONE) return;
    if (is_even()) rotate_halves(row, lane);
    else rotate_in_memory(row, scratch, lane);
  }

 private:
  // Halves of whole fours: a dimension's partner is another lane's at the same place. Their angles lie so that lanes find theirs in different banks.
  __device__ __forceinline__ bool is_even() const { return pairs_ == LMKIT_ROPE_HALVES && half_ % 4 == 0; }
  __device__ __forceinline__ int place(int pair) const { return is_even() ? pair / 2 % 2 * (head_dim / 4) + pair / 4 * 2 + pair % 2 : pair; }

  __device__ __forceinline__ void rotate_halves(Row& row, int lane) const {
    const Row old = row;
#pragma unroll
    for (int n = 0; n < Row::fours; ++n) {
      const int four = lane + n * warp_size, quarter = half_ / 4, partner = four < quarter ? four + quarter : four - quarter;
      const auto of_partner = [&](float low, float high) {  // high: of the lane's second four
        const float x = __shfl_sync(full_warp, low, partner % warp_size);
        if constexpr (Row::fours == 1) return x;
        const float y = __shfl_sync(full_warp, high, partner % warp_size);
        return partner < warp_size ? x : y;
      };
      constexpr int last = Row::fours - 1;
      const float4 other = make_float4(of_partner(old.at[0].x, old.at[last].x), of_partner(old.at[0].y, old.at[last].y),
                                       of_partner(old.at[0].z, old.at[last].z), of_partner(old.at[0].w, old.at[last].w));
      if (four >= 2 * quarter) continue;
      const float sign = four < quarter ? -1.f : 1.f;
      const auto* angles = reinterpret_cast<const float4*>(near_) + min(four, partner);
      const float4 a = angles[0], b = angles[head_dim / 8];  // two each
      float4& x = row.at[n];
      x.x = turned(x.x, a.x, other.x, sign * a.y), x.y = turned(x.y, a.z, other.y, sign * a.w);
      x.z = turned(x.z, b.x, other.z, sign * b.y), x.w = turned(x.w, b.z, other.w, sign * b.w);
    }
  }

  __device__ __forceinline__ void rotate_in_memory(Row& row, float* scratch, int lane) const {
    const bool adjacent = pairs_ == LMKIT_ROPE_ADJACENT;
    row.store(scratch, lane);
    __syncwarp();
    for (int i = lane; i < half_; i += warp_size) {
      float &a = scratch[adjacent ? 2 * i : i], &b = scratch[adjacent ? 2 * i + 1 : half_ + i];
      const float2 angle = near_[i];
      const float x = a;
      a = turned(x, angle.x, b, -angle.y), b = turned(b, angle.x, x, angle.y);
    }
    __syncwarp();
    row.load(scratch, lane);
    __syncwarp();
  }

  int pairs_, half_;
  const float2* near_;
};

}  // namespace lmkit::kernels::cuda
