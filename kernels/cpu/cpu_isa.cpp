// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cpu_isa.hpp>

#include <atomic>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lmkit::kernels {
namespace {

#if defined(__x86_64__) && defined(__linux__)
// Linux keeps room for a thread's tiles only once its process has asked for them.
bool allowed_tiles() noexcept {
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA of asm/prctl.h
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
bool allowed_tiles() noexcept { return false; }
#endif

#if defined(__x86_64__)
bool has_tiles() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned amx = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & amx) == amx && allowed_tiles();
}
#endif

CpuIsa find_best() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (!avx2) return CpuIsa::baseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (!avx512) return CpuIsa::avx2;
  return has_tiles() ? CpuIsa::amx : CpuIsa::avx512;
#else
  return CpuIsa::baseline;
#endif
}

CpuIsa choose() noexcept {
  const CpuIsa best = best_cpu_isa();
  const char* wish = std::getenv("LMKIT_CPU_ISA");
  if (!wish) return best;
  for (CpuIsa isa : cpu_isas)
    if (std::string_view(wish) == name_of(isa) && isa <= best) return isa;
  return best;
}

std::atomic<CpuIsa>& in_use() noexcept {
  static std::atomic<CpuIsa> isa = choose();
  return isa;
}

}  // namespace

const char* name_of(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::baseline: return "baseline";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
    case CpuIsa::amx: return "amx";
  }
  return "";
}

CpuIsa best_cpu_isa() noexcept {
  static const CpuIsa best = find_best();
  return best;
}

CpuIsa cpu_isa() noexcept { return in_use().load(std::memory_order_relaxed); }

void use_cpu_isa(CpuIsa isa) noexcept {
  if (isa <= best_cpu_isa()) in_use().store(isa, std::memory_order_relaxed);
}

}  // namespace lmkit::kernels
