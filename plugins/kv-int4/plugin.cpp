// SPDX-License-Identifier: Apache-2.0
#if defined(LMKIT_PLUGIN_CUDA_ARCHS)
#include "kv_int4_cuda.hpp"
using Backend = lmkit::KvInt4OnDevice;
#else
#include "kv_int4.hpp"
using Backend = lmkit::KvInt4;
#endif

#include <lmkit/plugin_sdk.hpp>

namespace {

using namespace lmkit::plugin;

constexpr lmkit_option rotation =
    text_option("rotation", "spread outliers over a head before rounding", "hadamard", "hadamard|none");
constexpr lmkit_option centre =
    text_option("centre", "store keys as differences from the mean key of the block before", "previous", "previous|none");

}  // namespace

LMKIT_PLUGIN_ENTRY = describe("kv-int4", "1.0.0", "4-bit keys and values, one scale per token and head: 28 % of the bytes of fp16",
                              "Apache-2.0", options<rotation, centre>, serves<lmkit::kv_table<Backend>>);
