// SPDX-License-Identifier: Apache-2.0
//
// KvInt8's CUDA half, with the same options; and both halves as one backend.
#pragma once

#include "kv_int8.hpp"

#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/device_kv.hpp>

namespace lmkit {

class KvInt8Cuda : public kernels::cuda::CudaKv {
 public:
  // Throws Error if the shape or the device is not supported.
  explicit KvInt8Cuda(const KvShape& shape, KvInt8Options options = {})
      : CudaKv(shape, options.zero_point ? kernels::cuda::affine_kv_kernels<8, false>() : kernels::cuda::affine_kv_kernels<8, true>()) {}
  KvInt8Cuda(const KvShape& shape, Settings settings) : KvInt8Cuda(shape, KvInt8Options{settings.flag("zero-point", KvInt8Options{}.zero_point)}) {}
};

using KvInt8OnDevice = kernels::cuda::DeviceKv<KvInt8, KvInt8Cuda>;

static_assert(KvBackend<KvInt8Cuda> && KvBackend<KvInt8OnDevice>);

}  // namespace lmkit
