// SPDX-License-Identifier: Apache-2.0
//
// KvInt4's CUDA half, with the same options; and both halves as one backend. Values keep their zero point beside centred keys,
// so blocks take 28.9 % of fp16's bytes at head_dim 64 and 27.3 % at 128.
#pragma once

#include "kv_int4.hpp"

#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/device_kv.hpp>

namespace lmkit {

class KvInt4Cuda : public kernels::cuda::CudaKv {
 public:
  // Throws Error if the shape or the device is not supported.
  explicit KvInt4Cuda(const KvShape& shape, KvInt4Options options = {})
      : CudaKv(shape, kernels::cuda::affine_kv_kernels<4, false>(), {options.hadamard, options.centred}) {}
  KvInt4Cuda(const KvShape& shape, Settings settings) : KvInt4Cuda(shape, KvInt4Options::of(settings)) {}
};

using KvInt4OnDevice = kernels::cuda::DeviceKv<KvInt4, KvInt4Cuda>;

static_assert(KvBackend<KvInt4Cuda> && KvBackend<KvInt4OnDevice>);

}  // namespace lmkit
