// SPDX-License-Identifier: Apache-2.0
//
// kv-nf4: a KV cache of 4-bit normal floats. This line is the plugin; kv_nf4.cu is its CUDA half, which may be left out.
#include "normal_float4.hpp"

#include <lmkit/plugin_sdk.hpp>

LMKIT_KV_CODEC_PLUGIN(NormalFloat4, "kv-nf4", "1.0.0", "4-bit normal floats in groups of 32: 28 % of the bytes of fp16", "Apache-2.0")
