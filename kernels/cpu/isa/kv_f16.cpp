// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/kv_kernels.hpp>

template const lmkit::kernels::KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, lmkit::kernels::HalfCodec>() noexcept;
