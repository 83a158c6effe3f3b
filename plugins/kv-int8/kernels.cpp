// SPDX-License-Identifier: Apache-2.0
#include "kv_int8.hpp"

namespace lmkit::kernels {

template const KvKernels& affine_kernels<isa::LMKIT_ISA, KvInt8::ScaleOnly>(int) noexcept;
template const KvKernels& affine_kernels<isa::LMKIT_ISA, KvInt8::ZeroPoint>(int) noexcept;

}  // namespace lmkit::kernels
