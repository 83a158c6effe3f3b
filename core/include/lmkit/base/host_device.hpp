// SPDX-License-Identifier: Apache-2.0
//
// LMKIT_HD marks a function that runs on the host and on a GPU, and is always inlined into its caller:
// a kernel compiled for one instruction set must never call a copy compiled for another.
#pragma once

#if defined(__CUDACC__)
#define LMKIT_HD __host__ __device__ __forceinline__
#else
#define LMKIT_HD inline __attribute__((always_inline))
#endif
