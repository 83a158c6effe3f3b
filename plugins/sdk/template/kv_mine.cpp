// SPDX-License-Identifier: Apache-2.0
//
// kv-mine: say here what is stored, in how many bytes, and why.
#include <lmkit/plugin_sdk.hpp>

struct MyCodec {
  static constexpr int group = 32;  // values that share one Packed; divides head_dim

  struct Packed {
    std::int8_t codes[group];
    lmkit::Half scale;
  };

  LMKIT_HD Packed encode(const lmkit::Vec<float, group>& x) const noexcept {
    float most = 0.f;
    for (int i = 0; i < group; ++i) most = __builtin_fmaxf(most, __builtin_fabsf(x[i]));
    Packed packed{};
    packed.scale = lmkit::to_half(most / 127.f);
    const float scale = lmkit::to_float(packed.scale);
    for (int i = 0; i < group; ++i) {
      const float code = scale > 0.f ? x[i] / scale : 0.f;
      packed.codes[i] = static_cast<std::int8_t>(__builtin_fminf(__builtin_fmaxf(code + (code < 0.f ? -0.5f : 0.5f), -127.f), 127.f));
    }
    return packed;
  }

  LMKIT_HD lmkit::Vec<float, group> decode(const Packed& packed) const noexcept {
    lmkit::Vec<float, group> x{};
    for (int i = 0; i < group; ++i) x[i] = lmkit::to_float(packed.scale) * packed.codes[i];
    return x;
  }
};

LMKIT_KV_CODEC_PLUGIN(MyCodec, "kv-mine", "0.1.0", "one line for `lmkit plugin list`", "Apache-2.0")
