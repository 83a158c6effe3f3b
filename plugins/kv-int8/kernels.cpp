// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/affine_kv.hpp>

template const lmkit::kernels::KvKernels& lmkit::kernels::affine_kernels<lmkit::kernels::isa::LMKIT_ISA, 8>(int, bool) noexcept;
