// SPDX-License-Identifier: Apache-2.0
//
// What sm_90a adds: products of a warpgroup (four warps, the first's index a multiple of 4) whose operands lie in shared memory, and
// registers that move between warpgroups. Only code under __CUDA_ARCH_FEAT_SM90_ALL may call these (PTX ISA, "Asynchronous Warpgroup
// Level Matrix Instructions").
//
// A matrix in shared memory is made of cores: eight rows of 16 consecutive bytes, 128 bytes in a piece. Rows are those of A
// or columns of B, a core holds eight values of the dimension that is summed over. A descriptor says where the first core is, how
// far the next along the sum lies (`along`), and how far the next eight rows (`across`).
//
// Products run on their own: between start of a product and wait_products nobody may touch its registers, nor write what it
// reads. The compiler cannot know, so registers are named again (`hold`) behind the wait.
#pragma once

#include <lmkit/kernels/cuda/barrier.cuh>

#include <type_traits>

namespace lmkit::kernels::cuda {

inline constexpr int warpgroup_threads = 128;

// --- threads of a block meet ----------------------------------------------------------------------------------------------

// Of `threads` threads, by the block's numbered barrier.
__device__ __forceinline__ void numbered_wait(int number, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory"); }
__device__ __forceinline__ void numbered_arrive(int number, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory"); }

// What threads wrote to shared memory before is seen by products started after.
__device__ __forceinline__ void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- registers of a thread: the whole warpgroup calls ---------------------------------------------------------------------

template <int registers>
__device__ __forceinline__ void claim_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers)); }
template <int registers>
__device__ __forceinline__ void release_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers)); }

// --- products ------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ std::uint64_t core_matrix(std::uint32_t address, int along, int across) {
  return std::uint64_t{address >> 4 & 0x3fff} | std::uint64_t(along >> 4) << 16 | std::uint64_t(across >> 4) << 32;
}

// Rows of 128 bytes one after another, their 16-byte pieces permuted as a tensor copy with a swizzle of 128 bytes leaves them;
// 1024-byte aligned. 32 bytes further along the sum are 2 more in the descriptor.
__device__ __forceinline__ std::uint64_t swizzled_matrix(std::uint32_t address) {
  return std::uint64_t{address >> 4 & 0x3fff} | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

__device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` committed groups are under way.
template <int pending>
__device__ __forceinline__ void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }

template <int N>
__device__ __forceinline__ void hold(float (&x)[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) asm volatile("" : "+f"(x[n])::"memory");
}

// c (64 rows, columns) = [c +] A B of 16-bit floats, 16 to sum over. A warp of the group has 16 rows; of each eight columns a
// lane has a C fragment of mma's (prim.cuh), so of c[4 n .. 4 n + 3] the first two are row g, the last two row g + 8.
// A is in shared memory, or a fragment of mma's in registers.
template <int columns, class T>
struct Product;

// clang-format off
#define LMKIT_NAMES_4 "%0,%1,%2,%3"
#define LMKIT_NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define LMKIT_NAMES_12 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11"
#define LMKIT_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define LMKIT_NAMES_24 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23"
#define LMKIT_NAMES_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define LMKIT_NAMES_40 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31" ",%32,%33,%34,%35,%36,%37,%38,%39"
#define LMKIT_NAMES_48 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31" ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define LMKIT_NAMES_64 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31" ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define LMKIT_4(c, n) "+f"(c[n]), "+f"(c[n + 1]), "+f"(c[n + 2]), "+f"(c[n + 3])
#define LMKIT_16(c, n) LMKIT_4(c, n), LMKIT_4(c, n + 4), LMKIT_4(c, n + 8), LMKIT_4(c, n + 12)
#define LMKIT_VALUES_4 LMKIT_4(c, 0)
#define LMKIT_VALUES_8 LMKIT_4(c, 0), LMKIT_4(c, 4)
#define LMKIT_VALUES_12 LMKIT_4(c, 0), LMKIT_4(c, 4), LMKIT_4(c, 8)
#define LMKIT_VALUES_16 LMKIT_16(c, 0)
#define LMKIT_VALUES_24 LMKIT_16(c, 0), LMKIT_4(c, 16), LMKIT_4(c, 20)
#define LMKIT_VALUES_32 LMKIT_16(c, 0), LMKIT_16(c, 16)
#define LMKIT_VALUES_40 LMKIT_16(c, 0), LMKIT_16(c, 16), LMKIT_4(c, 32), LMKIT_4(c, 36)
#define LMKIT_VALUES_48 LMKIT_16(c, 0), LMKIT_16(c, 16), LMKIT_16(c, 32)
#define LMKIT_VALUES_64 LMKIT_16(c, 0), LMKIT_16(c, 16), LMKIT_16(c, 32), LMKIT_16(c, 48)
#define LMKIT_PRODUCT(columns, count, T, type, p0, p1, p2, p3, p4, p5)                                                        \
  template <>                                                                                                                 \
  struct Product<columns, T> {                                                                                                \
    __device__ __forceinline__ static void add(float (&c)[count], std::uint64_t a, std::uint64_t b, int keep) {               \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" \
                   LMKIT_NAMES_##count "}, " p0 ", " p1 ", p, 1, 1, 0, 0;\n}"                                                 \
                   : LMKIT_VALUES_##count : "l"(a), "l"(b), "r"(keep));                                                       \
    }                                                                                                                         \
    __device__ __forceinline__ static void add(float (&c)[count], const std::uint32_t* a, std::uint64_t b, int keep) {        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" \
                   LMKIT_NAMES_##count "}, {" p0 ", " p1 ", " p2 ", " p3 "}, " p4 ", p, 1, 1, 0;\n}"                          \
                   : LMKIT_VALUES_##count : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                   \
    }                                                                                                                         \
  };
LMKIT_PRODUCT(8, 4, __half, "f16", "%4", "%5", "%6", "%7", "%8", "%9")
LMKIT_PRODUCT(16, 8, __half, "f16", "%8", "%9", "%10", "%11", "%12", "%13")
LMKIT_PRODUCT(16, 8, __nv_bfloat16, "bf16", "%8", "%9", "%10", "%11", "%12", "%13")
LMKIT_PRODUCT(24, 12, __half, "f16", "%12", "%13", "%14", "%15", "%16", "%17")
LMKIT_PRODUCT(24, 12, __nv_bfloat16, "bf16", "%12", "%13", "%14", "%15", "%16", "%17")
LMKIT_PRODUCT(32, 16, __half, "f16", "%16", "%17", "%18", "%19", "%20", "%21")
LMKIT_PRODUCT(32, 16, __nv_bfloat16, "bf16", "%16", "%17", "%18", "%19", "%20", "%21")
LMKIT_PRODUCT(48, 24, __half, "f16", "%24", "%25", "%26", "%27", "%28", "%29")
LMKIT_PRODUCT(48, 24, __nv_bfloat16, "bf16", "%24", "%25", "%26", "%27", "%28", "%29")
LMKIT_PRODUCT(64, 32, __half, "f16", "%32", "%33", "%34", "%35", "%36", "%37")
LMKIT_PRODUCT(64, 32, __nv_bfloat16, "bf16", "%32", "%33", "%34", "%35", "%36", "%37")
LMKIT_PRODUCT(80, 40, __half, "f16", "%40", "%41", "%42", "%43", "%44", "%45")
LMKIT_PRODUCT(80, 40, __nv_bfloat16, "bf16", "%40", "%41", "%42", "%43", "%44", "%45")
LMKIT_PRODUCT(96, 48, __half, "f16", "%48", "%49", "%50", "%51", "%52", "%53")
LMKIT_PRODUCT(96, 48, __nv_bfloat16, "bf16", "%48", "%49", "%50", "%51", "%52", "%53")
LMKIT_PRODUCT(128, 64, __half, "f16", "%64", "%65", "%66", "%67", "%68", "%69")
LMKIT_PRODUCT(128, 64, __nv_bfloat16, "bf16", "%64", "%65", "%66", "%67", "%68", "%69")
#undef LMKIT_PRODUCT
#undef LMKIT_NAMES_4
#undef LMKIT_VALUES_4
#undef LMKIT_NAMES_24
#undef LMKIT_VALUES_24
#undef LMKIT_NAMES_16
#undef LMKIT_VALUES_16
#undef LMKIT_NAMES_12
#undef LMKIT_VALUES_12
#undef LMKIT_NAMES_8
#undef LMKIT_VALUES_8
#undef LMKIT_NAMES_32
#undef LMKIT_VALUES_32
#undef LMKIT_NAMES_40
#undef LMKIT_VALUES_40
#undef LMKIT_NAMES_48
#undef LMKIT_VALUES_48
#undef LMKIT_NAMES_64
#undef LMKIT_VALUES_64
#undef LMKIT_4
#undef LMKIT_16
// clang-format on

}  // namespace lmkit::kernels::cuda
