// SPDX-License-Identifier: Apache-2.0
//
// KvInt4: keys and values as 4-bit integers with one half-precision scale and zero point per token and head.
//
//   rotation=hadamard|none   spread outliers over the head before rounding; q is rotated alike, and attention's result back
//   zero-point=true          false drops the zero point: 26.6 % instead of 28.1 % of fp16's bytes at head_dim 64
//
// Neither scale nor zero point touches an element: attention works on the codes (concepts/kv_codec.hpp).
#pragma once

#include <lmkit/base/settings.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/affine_kv.hpp>
#include <lmkit/kernels/cpu_kv.hpp>

#include <string>
#include <string_view>

namespace lmkit {

struct KvInt4Options {
  bool hadamard = true;
  bool zero_point = true;
};

class KvInt4 : public kernels::CpuKv {
 public:
  using Options = KvInt4Options;

  // Throws Error if the shape is not supported.
  explicit KvInt4(const KvShape& shape, Options options = {})
      : CpuKv(shape, kernels::affine_kernels_for<4>(shape.head_dim, !options.zero_point), options.hadamard) {}
  KvInt4(const KvShape& shape, Settings settings)
      : KvInt4(shape, Options{rotates(settings.text("rotation", "hadamard")), settings.flag("zero-point", true)}) {}

 private:
  static bool rotates(std::string_view rotation) {
    if (rotation == "hadamard") return true;
    if (rotation == "none") return false;
    throw Error(ErrorKind::plugin, "rotation=" + std::string(rotation), "hadamard or none");
  }
};

static_assert(KvBackend<KvInt4>);

}  // namespace lmkit
