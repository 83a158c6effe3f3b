// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cuda/kv_plain.hpp>

#include <algorithm>
#include <array>

namespace lmkit::kernels::cuda {

extern const KvKernels* const plain_f16_kernels[5];
extern const KvKernels* const plain_bf16_kernels[5];

std::span<const KvKernels* const> plain_kv_kernels() noexcept {
  static const auto all = [] {
    std::array<const KvKernels*, 10> tables;
    std::ranges::copy(plain_f16_kernels, tables.begin());
    std::ranges::copy(plain_bf16_kernels, tables.begin() + 5);
    return tables;
  }();
  return all;
}

}  // namespace lmkit::kernels::cuda
