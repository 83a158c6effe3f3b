// SPDX-License-Identifier: Apache-2.0
// error: a KvCodec has `static constexpr int group`
#include <lmkit/plugin_sdk.hpp>

struct Codec {
  static constexpr int group = 0;
  struct Packed {
    lmkit::Half values[8];
  };
  LMKIT_HD Packed encode(const lmkit::Vec<float, 8>&) const noexcept { return {}; }
  LMKIT_HD lmkit::Vec<float, 8> decode(const Packed&) const noexcept { return {}; }
};

LMKIT_KV_CODEC_PLUGIN(Codec, "kv-test", "1.0.0", "a test", "Apache-2.0")
