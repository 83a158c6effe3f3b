// SPDX-License-Identifier: Apache-2.0
//
// The passes of softmax.hpp, one set per instruction set (isa/softmax.cpp).
#pragma once

#include <lmkit/kernels/cpu_isa.hpp>

#include <cstdint>

namespace lmkit::kernels {

struct SoftmaxKernels {
  float (*largest)(const float* values, std::int64_t count) noexcept;
  double (*weights)(const float* x, std::int64_t count, float largest, float scale, float* out) noexcept;
  double (*sum)(const float* values, std::int64_t count) noexcept;
};

template <class Isa>
const SoftmaxKernels& softmax_kernels() noexcept;  // defined in isa/softmax.cpp
template <>
const SoftmaxKernels& softmax_kernels<isa::baseline>() noexcept;
template <>
const SoftmaxKernels& softmax_kernels<isa::avx2>() noexcept;
template <>
const SoftmaxKernels& softmax_kernels<isa::avx512>() noexcept;

}  // namespace lmkit::kernels
