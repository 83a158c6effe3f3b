// SPDX-License-Identifier: Apache-2.0
// error: a codec with `bits` and `symmetric` is foldable: bits is 4 or 8
#include <lmkit/plugin_sdk.hpp>

struct Codec {
  static constexpr int group = 8;
  static constexpr int bits = 3;
  static constexpr bool symmetric = true;
  struct Packed {
    std::uint8_t codes[3];
    lmkit::Half scale;
  };
  LMKIT_HD Packed encode(const lmkit::Vec<float, 8>&) const noexcept { return {}; }
  LMKIT_HD lmkit::Vec<float, 8> decode(const Packed&) const noexcept { return {}; }
};

LMKIT_KV_CODEC_PLUGIN(Codec, "kv-test", "1.0.0", "a test", "Apache-2.0")
