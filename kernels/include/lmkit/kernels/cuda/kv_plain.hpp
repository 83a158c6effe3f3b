// SPDX-License-Identifier: Apache-2.0
//
// The KV cache as it comes, in the activations' own fp16 or bf16: what KvF16 is on a GPU.
#pragma once

#include <lmkit/kernels/cuda/cuda_kv.hpp>

#include <span>

namespace lmkit::kernels::cuda {

// Head dims 64, 80, 96, 128, 256, for both types. Defined in kernels/cuda/kv_plain.cu.
std::span<const KvKernels* const> plain_kv_kernels() noexcept;

}  // namespace lmkit::kernels::cuda
