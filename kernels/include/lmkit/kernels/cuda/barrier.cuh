// SPDX-License-Identifier: Apache-2.0
//
// Barriers in shared memory (PTX ISA, "mbarrier"): a phase ends when as many have arrived as were named, and the bytes they expect
// have come. barrier_wait takes sm_90.
#pragma once

#include <lmkit/kernels/cuda/prim.cuh>

#include <cstdint>

namespace lmkit::kernels::cuda {

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Whether phase `phase` is complete: 0, 1, 2, … of which only the lowest bit counts.
__device__ __forceinline__ bool barrier_test(std::uint32_t barrier, int phase) {
  std::uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(barrier), "r"(phase & 1)
               : "memory");
  return done;
}
// Returns when it is.
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, int phase) {
  std::uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(phase & 1)
                 : "memory");
  } while (!done);
}

}  // namespace lmkit::kernels::cuda
