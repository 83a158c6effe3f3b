// SPDX-License-Identifier: Apache-2.0
//
// Centred keys on a GPU, as ../kv_centre.hpp explains them: a block's keys are stored as differences from the mean key of
// the block before it in the sequence, and q . mean goes back to the scores of that block. The mean lies behind the tiles
// of a head's part of a block, in fragment order: for attention it is one more key, multiplied by the tensor core.
//
// A mean is rounded to half at every token, in the order of positions, by one chain of operations wherever it is
// computed: how a prompt is cut into chunks changes no bit.
#pragma once

#include <lmkit/kernels/cuda/kv_tile.cuh>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

template <int head_dim>
struct Centre : MeanStrip<head_dim> {
  using Strip = MeanStrip<head_dim>;

  __device__ static float get(const std::byte* strip, int d) {
    return __half2float(*reinterpret_cast<const __half*>(strip + Strip::place(d))) * (1.f / Strip::gain(d));
  }
  __device__ static void put(std::byte* strip, int d, float mean) {
    *reinterpret_cast<__half*>(strip + Strip::place(d)) = __float2half_rn(mean * Strip::gain(d));
  }
  // Dimensions d .. d + 3, d a multiple of 4.
  __device__ static float4 unpack4(uint2 halves) {
    const float2 even = unpack_half2(halves.x), odd = unpack_half2(halves.y);
    return make_float4(even.x, odd.x * (1.f / 16), even.y, odd.y * (1.f / 16));
  }
  __device__ static uint2 pack4(float4 mean) { return make_uint2(pack2<__half>(mean.x, mean.z), pack2<__half>(16 * mean.y, 16 * mean.w)); }
  // The mean once the block's `slot`-th key has joined it.
  __device__ static float next(float mean, float x, int slot) {
    if (slot == 0) mean = x;
    mean = fmaf(__fsub_rn(x, mean), 1.f / static_cast<float>(slot + 1), mean);
    return __half2float(__float2half_rn(fminf(fmaxf(mean, -Strip::most), Strip::most)));
  }
  // The words of fragment k: for the low and the high columns of queries.
  __device__ __forceinline__ static Words<2> fragment(const std::byte* strip, int k, int lane) {
    return load_words<2>(strip + (k * 4 + lane % 4) * 8);
  }
};

}  // namespace lmkit::kernels::cuda
