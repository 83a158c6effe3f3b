// SPDX-License-Identifier: Apache-2.0
//
// The few instructions the kernels are made of: asynchronous copies to shared memory, the m16n8k16 tensor-core product,
// the 8x8 transpose, two-element conversions. All of them exist from sm_80 on.
//
// Fragments of m16n8k16, lane = 4 g + i (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//     A (16 x 16)  a0: row g, columns 2i 2i+1    a1: row g+8    a2: row g, columns 2i+8 2i+9    a3: row g+8
//     B (16 x 8)   b0: rows 2i 2i+1, column g    b1: rows 2i+8 2i+9
//     C (16 x 8)   c0 c1: row g, columns 2i 2i+1    c2 c3: row g+8
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace lmkit::kernels::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned full_warp = 0xffffffffu;

// --- two 16-bit floats in a register -------------------------------------------------------------------------------

__device__ __forceinline__ std::uint32_t bits_of(__half2 x) { return *reinterpret_cast<std::uint32_t*>(&x); }
__device__ __forceinline__ std::uint32_t bits_of(__nv_bfloat162 x) { return *reinterpret_cast<std::uint32_t*>(&x); }

template <class T>
__device__ __forceinline__ std::uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ std::uint32_t pack2<__half>(float low, float high) { return bits_of(__floats2half2_rn(low, high)); }
template <>
__device__ __forceinline__ std::uint32_t pack2<__nv_bfloat16>(float low, float high) { return bits_of(__floats2bfloat162_rn(low, high)); }

__device__ __forceinline__ float2 unpack_half2(std::uint32_t x) { return __half22float2(*reinterpret_cast<__half2*>(&x)); }
__device__ __forceinline__ float2 unpack_bfloat2(std::uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

// Activations are fp16 or bf16, chosen at run time where only loads and stores depend on it.
__device__ __forceinline__ float2 load2(std::uint32_t x, bool is_bf16) { return is_bf16 ? unpack_bfloat2(x) : unpack_half2(x); }
__device__ __forceinline__ std::uint32_t store2(float low, float high, bool is_bf16) {
  return is_bf16 ? pack2<__nv_bfloat16>(low, high) : pack2<__half>(low, high);
}

// --- tensor cores ----------------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                    std::uint32_t b1);
template <>
__device__ __forceinline__ void mma<__half>(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                            std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                                   std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Lane 4 r + i holds elements 2i, 2i+1 of row r of an 8x8 matrix; returns the same of its transpose.
__device__ __forceinline__ std::uint32_t transpose8x8(std::uint32_t x) {
  std::uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// --- shared memory -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }

// 16 bytes past L1, both ends 16-byte aligned.
__device__ __forceinline__ void copy16_async(std::uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}
// The first `bytes` of 8, through L1; the rest of the target becomes 0.
__device__ __forceinline__ void copy8_async(std::uint32_t target, const void* source, int bytes) {
  asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 8, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
}
// Brings a line of 128 bytes to L2.
__device__ __forceinline__ void prefetch_l2(const void* source) { asm volatile("prefetch.global.L2 [%0];" ::"l"(source)); }
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of this thread's groups are under way.
template <int pending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// N consecutive words, 4 N bytes aligned.
template <int N>
struct Words {
  std::uint32_t at[N];
};
template <int N>
__device__ __forceinline__ Words<N> load_words(const std::byte* p) {
  Words<N> words;
  if constexpr (N == 4) {
    const uint4 x = *reinterpret_cast<const uint4*>(p);
    words.at[0] = x.x, words.at[1] = x.y, words.at[2] = x.z, words.at[3] = x.w;
  } else if constexpr (N == 2) {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    words.at[0] = x.x, words.at[1] = x.y;
  } else {
    words.at[0] = *reinterpret_cast<const std::uint32_t*>(p);
  }
  return words;
}

// --- one launch after another on sm_90: the second's blocks may start when all of the first's have said so ---------------

__device__ __forceinline__ void start_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// Returns when the launch before is complete and its writes are visible.
__device__ __forceinline__ void wait_for_prerequisites() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// --- counting blocks of one launch ---------------------------------------------------------------------------------------

// One more has arrived; returns how many had before. What this warp wrote before a __syncwarp, those see who arrive later.
__device__ __forceinline__ std::uint32_t arrive(std::uint32_t* counter) {
  std::uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
  return before;
}

// --- arithmetic ----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh from exp2: relative error a few 1e-7 away from 0, absolute near it; tanh.approx is off by 5e-4.
__device__ __forceinline__ float tanh_exp2(float x) { return 1.f - __fdividef(2.f, exp2_approx(2.885390082f * x) + 1.f); }

// Reduces over the eight lanes that share lane % 4: the rows of a C fragment.
__device__ __forceinline__ float max_over_rows(float x) {
  x = fmaxf(x, __shfl_xor_sync(full_warp, x, 4));
  x = fmaxf(x, __shfl_xor_sync(full_warp, x, 8));
  return fmaxf(x, __shfl_xor_sync(full_warp, x, 16));
}
__device__ __forceinline__ float sum_over_rows(float x) {
  x += __shfl_xor_sync(full_warp, x, 4);
  x += __shfl_xor_sync(full_warp, x, 8);
  return x + __shfl_xor_sync(full_warp, x, 16);
}
// Over the four lanes that share lane / 4: the columns.
__device__ __forceinline__ float max_over_columns(float x) {
  x = fmaxf(x, __shfl_xor_sync(full_warp, x, 1));
  return fmaxf(x, __shfl_xor_sync(full_warp, x, 2));
}
__device__ __forceinline__ float sum_over_columns(float x) {
  x += __shfl_xor_sync(full_warp, x, 1);
  return x + __shfl_xor_sync(full_warp, x, 2);
}

}  // namespace lmkit::kernels::cuda
