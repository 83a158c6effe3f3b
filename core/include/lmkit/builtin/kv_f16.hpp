// SPDX-License-Identifier: Apache-2.0
//
// KvF16: keys and values in 16 bits. The KV cache when no plugin is given, and the yardstick of the others. On the CPU
// half precision, on a GPU the activations' own type. A block of 64 tokens takes 256 * head_dim bytes per key/value head.
#pragma once

#include <lmkit/builtin/cuda.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/cpu_kv.hpp>
#include <lmkit/kernels/cuda/device_kv.hpp>

namespace lmkit {

struct CpuKvF16 : kernels::CpuKv {
  explicit CpuKvF16(const KvShape& shape) : CpuKv(shape, kernels::kv_kernels_for<kernels::HalfCodec>()) {}
};

struct CudaKvF16 : kernels::cuda::CudaKv {
  explicit CudaKvF16(const KvShape& shape) : CudaKv(shape, cuda_library().plain_kv()) {}
};

class KvF16 : public kernels::cuda::DeviceKv<CpuKvF16, CudaKvF16> {
 public:
  // Throws Error if the shape is not supported.
  explicit KvF16(const KvShape& shape) : DeviceKv(shape, Settings{}) {}
};

static_assert(KvBackend<KvF16>);

}  // namespace lmkit
