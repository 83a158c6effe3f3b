// SPDX-License-Identifier: Apache-2.0
#if defined(LMKIT_PLUGIN_CUDA_ARCHS)
#include "kv_int8_cuda.hpp"
using Backend = lmkit::KvInt8OnDevice;
#else
#include "kv_int8.hpp"
using Backend = lmkit::KvInt8;
#endif

#include <lmkit/plugin_sdk.hpp>

namespace {

using namespace lmkit::plugin;

constexpr lmkit_option zero_point = flag_option("zero-point", "store a zero point beside each scale", true);

}  // namespace

LMKIT_PLUGIN_ENTRY = describe("kv-int8", "1.0.0", "8-bit keys and values, one scale and zero point per token and head: about half the bytes of fp16",
                              "Apache-2.0", options<zero_point>, serves<lmkit::kv_table<Backend>>);
