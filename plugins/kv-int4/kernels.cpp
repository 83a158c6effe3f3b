// SPDX-License-Identifier: Apache-2.0
#include "kv_int4.hpp"

namespace lmkit::kernels {

template const KvKernels& affine_kernels<isa::LMKIT_ISA, KvInt4::Centred>(int) noexcept;
template const KvKernels& affine_kernels<isa::LMKIT_ISA, KvInt4::Plain>(int) noexcept;

}  // namespace lmkit::kernels
