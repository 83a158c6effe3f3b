// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/softmax.hpp>

#include "softmax_kernels.hpp"

namespace lmkit::kernels {
namespace {

const SoftmaxKernels& in_use() noexcept {
  return visit_isa(cpu_isa(), [](auto isa) -> const SoftmaxKernels& { return softmax_kernels<decltype(isa)>(); });
}

}  // namespace

float largest(const float* values, std::int64_t count) noexcept { return in_use().largest(values, count); }

double softmax_weights(const float* x, std::int64_t count, float largest, float scale, float* out) noexcept {
  return in_use().weights(x, count, largest, scale, out);
}

double sum(const float* values, std::int64_t count) noexcept { return in_use().sum(values, count); }

}  // namespace lmkit::kernels
