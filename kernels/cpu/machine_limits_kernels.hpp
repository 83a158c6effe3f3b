// SPDX-License-Identifier: Apache-2.0
//
// The loops behind machine_limits.hpp, one set per instruction set (isa/machine_limits.cpp).
#pragma once

#include <lmkit/kernels/cpu_isa.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {

struct LimitKernels {
  void (*read)(const std::byte* data, std::int64_t bytes) noexcept;  // bytes: a multiple of 256
  double (*int8_operations)(std::int64_t rounds) noexcept;           // works, and says how many operations that was
  double (*float_operations)(std::int64_t rounds) noexcept;
};

template <class Isa>
const LimitKernels& limit_kernels() noexcept;  // defined in isa/machine_limits.cpp

}  // namespace lmkit::kernels
