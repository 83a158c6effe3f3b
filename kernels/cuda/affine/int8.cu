// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/cuda/affine_kv.hpp>

template std::span<const lmkit::kernels::cuda::KvKernels* const> lmkit::kernels::cuda::affine_kv_kernels<8, false>() noexcept;
