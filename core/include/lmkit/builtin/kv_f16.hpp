// SPDX-License-Identifier: Apache-2.0
//
// KvF16: keys and values in half precision. The KV cache when no plugin is given, and the yardstick of the others.
// A block of 64 tokens takes 256 * head_dim bytes per key/value head.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/cpu_kv.hpp>

namespace lmkit {

class KvF16 : public kernels::CpuKv {
 public:
  // Throws Error if the shape is not supported.
  explicit KvF16(const KvShape& shape) : CpuKv(shape, kernels::kv_kernels_for<kernels::HalfCodec>()) {}
};

static_assert(KvBackend<KvF16>);

}  // namespace lmkit
