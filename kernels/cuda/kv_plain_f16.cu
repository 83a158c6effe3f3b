// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cuda/kv_kernels.cuh>

namespace lmkit::kernels::cuda {

extern const KvKernels* const plain_f16_kernels[5];

template <int head_dim>
inline constexpr const KvKernels* table = &kv_kernels<Plain16<Half>, head_dim, __half>;

const KvKernels* const plain_f16_kernels[5] = {table<64>, table<80>, table<96>, table<128>, table<256>};

}  // namespace lmkit::kernels::cuda
