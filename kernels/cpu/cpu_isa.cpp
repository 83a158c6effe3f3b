// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cpu_isa.hpp>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace lmkit::kernels {
namespace {

CpuIsa find_best() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (!avx2) return CpuIsa::baseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  return avx512 ? CpuIsa::avx512 : CpuIsa::avx2;
#else
  return CpuIsa::baseline;
#endif
}

CpuIsa choose() noexcept {
  const CpuIsa best = best_cpu_isa();
  const char* wish = std::getenv("LMKIT_CPU_ISA");
  if (!wish) return best;
  for (CpuIsa isa : {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512})
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
