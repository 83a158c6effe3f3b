// SPDX-License-Identifier: Apache-2.0
//
// KvInt4's CUDA half, whose keys are not centred; and both halves as one backend.
#pragma once

#include "kv_int4.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/device_kv.hpp>

namespace lmkit {

class KvInt4Cuda : public kernels::cuda::CudaKv {
 public:
  // Throws Error if the shape, the device or centred keys are not supported.
  explicit KvInt4Cuda(const KvShape& shape, KvInt4Options options = {.centred = false})
      : CudaKv(shape, kernels::cuda::affine_kv_kernels<4, false>(), options.hadamard) {
    if (options.centred) throw Error(ErrorKind::plugin, "centre=previous on a GPU", "auto or none", "the CPU for centred keys");
  }
  KvInt4Cuda(const KvShape& shape, Settings settings)
      : KvInt4Cuda(shape, KvInt4Options{settings.text("rotation", "hadamard") == "hadamard", settings.text("centre", "auto") == "previous"}) {}
};

using KvInt4OnDevice = kernels::cuda::DeviceKv<KvInt4, KvInt4Cuda>;

static_assert(KvBackend<KvInt4Cuda> && KvBackend<KvInt4OnDevice>);

}  // namespace lmkit
