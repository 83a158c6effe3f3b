// SPDX-License-Identifier: Apache-2.0
//
// KvInt4: keys and values as 4-bit integers with one half-precision scale and zero point per token and head.
//
//   rotation=hadamard|none   spread outliers over the head before rounding; q is rotated alike, and attention's result back
//   centre=previous|none     store keys as differences from the mean key of the block before (kernels/kv_centre.hpp); on the
//                            CPU the mean takes the place of the values' zero point
//
// Both ways take 28.1 % of fp16's bytes at head_dim 64 on the CPU. Neither scale nor zero point touches an element: attention works on
// the codes (concepts/kv_codec.hpp).
#pragma once

#include <lmkit/base/settings.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/affine_kv.hpp>
#include <lmkit/kernels/cpu_kv.hpp>

namespace lmkit {

struct KvInt4Options {
  bool hadamard = true;
  bool centred = true;

  static KvInt4Options of(Settings settings) noexcept {
    return {settings.text("rotation", "hadamard") == "hadamard", settings.text("centre", "previous") == "previous"};
  }
};

class KvInt4 : public kernels::CpuKv {
 public:
  using Options = KvInt4Options;
  using Centred = kernels::AffineKv<4, false, true, true>;
  using Plain = kernels::AffineKv<4, false, false, false>;

  // Throws Error if the shape is not supported.
  explicit KvInt4(const KvShape& shape, Options options = {})
      : CpuKv(shape, options.centred ? kernels::affine_kernels_for<Centred>(shape.head_dim)
                                     : kernels::affine_kernels_for<Plain>(shape.head_dim),
              options.hadamard) {}
  KvInt4(const KvShape& shape, Settings settings) : KvInt4(shape, Options::of(settings)) {}
};

static_assert(KvBackend<KvInt4>);

}  // namespace lmkit
