// SPDX-License-Identifier: Apache-2.0
//
// Which instruction set the CPU kernels use. Found once at start; LMKIT_CPU_ISA=baseline|avx2|avx512|amx lowers it.
//
// A kernel file is compiled once per instruction set, with LMKIT_ISA naming the set (see lmkit_add_isa_kernels in
// CMake). Its templates take the set as a tag type, so that the copies are different functions to the linker.
#pragma once

#include <cstdint>

namespace lmkit::kernels {

// avx2: AVX2 FMA F16C; avx512: F BW DQ VL VNNI; amx: avx512, and AMX-TILE, -INT8 and -BF16 in gemm
enum class CpuIsa : std::uint8_t { baseline, avx2, avx512, amx };
inline constexpr CpuIsa cpu_isas[] = {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::amx};

const char* name_of(CpuIsa isa) noexcept;
CpuIsa best_cpu_isa() noexcept;  // of this machine
CpuIsa cpu_isa() noexcept;       // in use

// Lets tests and benchmarks run each set; one above the machine's best is ignored. [load-time]
void use_cpu_isa(CpuIsa isa) noexcept;

namespace isa {
struct baseline {};
struct avx2 {};
struct avx512 {};
struct amx {};
}  // namespace isa

// body(tag) with the tag of `isa`: the one place where the run-time value becomes a type. Only gemm knows the tag amx.
template <class Body>
decltype(auto) visit_isa(CpuIsa isa, Body&& body) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::amx:
    case CpuIsa::avx512: return body(isa::avx512{});
    case CpuIsa::avx2: return body(isa::avx2{});
#endif
    default: return body(isa::baseline{});
  }
}

}  // namespace lmkit::kernels
