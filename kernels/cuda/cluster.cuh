// SPDX-License-Identifier: Apache-2.0
//
// The blocks of a cluster (sm_90), which write to each other's shared memory, and its barriers.
#pragma once

#include <lmkit/kernels/cuda/barrier.cuh>

#include <cstdint>

namespace lmkit::kernels::cuda {

// Returns when the phase of that parity has ended, and what other blocks wrote before is seen; at once for the odd one of a barrier that is new.
__device__ __forceinline__ void wait_phase(std::uint32_t barrier, int parity) {
  std::uint32_t done = 0;
  while (!done) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#endif
  }
}

// In two steps for all threads of the cluster, of which some may leave without waiting: barriers that were set up before the first are
// known to all after the second.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster; barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// All threads of the cluster; barriers that were set up before are known to all after.
__device__ __forceinline__ void meet_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster; barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
#endif
}
__device__ __forceinline__ void arrive_expecting(std::uint32_t barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}
// To `address` of the shared memory of block `part`, whose barrier counts the bytes.
__device__ __forceinline__ void send(std::uint32_t address, float x, std::uint32_t barrier, int part) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .b32 there, bell; mapa.shared::cluster.u32 there, %0, %3; mapa.shared::cluster.u32 bell, %2, %3; "
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], %1, [bell]; }" ::"r"(address),
      "r"(__float_as_uint(x)), "r"(barrier), "r"(part)
      : "memory");
#endif
}
// What lies at `address` of this block's shared memory, in that of block `part`.
__device__ __forceinline__ std::uint32_t address_in(std::uint32_t address, int part) {
  std::uint32_t there = 0;
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(part));
#endif
  return there;
}
// Four neighbours to an address_in a block, 16-byte aligned, whose barrier at an address_in it counts the bytes.
__device__ __forceinline__ void send(std::uint32_t there, float4 x, std::uint32_t bell) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(there), "r"(__float_as_uint(x.x)),
               "r"(__float_as_uint(x.y)), "r"(__float_as_uint(x.z)), "r"(__float_as_uint(x.w)), "r"(bell)
               : "memory");
#endif
}
// At the barrier at an address_in a block.
__device__ __forceinline__ void arrive_at(std::uint32_t there) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
#endif
}

}  // namespace lmkit::kernels::cuda
