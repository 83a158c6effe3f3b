// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cpu_isa.hpp>

#include <cstdlib>
#include <string_view>

namespace lmkit::kernels {
namespace {

CpuIsa best_of_machine() noexcept {
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
  const CpuIsa best = best_of_machine();
  const char* wish = std::getenv("LMKIT_CPU_ISA");
  if (!wish) return best;
  for (CpuIsa isa : {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512})
    if (std::string_view(wish) == name_of(isa) && isa <= best) return isa;
  return best;
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

CpuIsa cpu_isa() noexcept {
  static const CpuIsa isa = choose();
  return isa;
}

}  // namespace lmkit::kernels
