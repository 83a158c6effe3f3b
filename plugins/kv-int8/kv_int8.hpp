// SPDX-License-Identifier: Apache-2.0
//
// KvInt8: keys and values as 8-bit integers with one half-precision scale and zero point per token and head.
//
//   zero-point=true    without it (the scale alone) 1.5 % fewer of fp16's bytes and a little more noise: at head_dim 64
//                      51.6 % of the bytes against 53.1 %, +0.10 % perplexity of SmolLM2-135M against +0.03 %
//
// The scale never touches an element: attention works on the codes (concepts/kv_codec.hpp).
#pragma once

#include <lmkit/base/settings.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/affine_kv.hpp>
#include <lmkit/kernels/cpu_kv.hpp>

namespace lmkit {

struct KvInt8Options {
  bool zero_point = true;
};

class KvInt8 : public kernels::CpuKv {
 public:
  using Options = KvInt8Options;
  using ScaleOnly = kernels::AffineKv<8, true, true, false>;
  using ZeroPoint = kernels::AffineKv<8, false, false, false>;

  // Throws Error if the shape is not supported.
  explicit KvInt8(const KvShape& shape, Options options = {})
      : CpuKv(shape, options.zero_point ? kernels::affine_kernels_for<ZeroPoint>(shape.head_dim)
                                        : kernels::affine_kernels_for<ScaleOnly>(shape.head_dim)) {}
  KvInt8(const KvShape& shape, Settings settings) : KvInt8(shape, Options{settings.flag("zero-point", Options{}.zero_point)}) {}
};

static_assert(KvBackend<KvInt8>);

}  // namespace lmkit
