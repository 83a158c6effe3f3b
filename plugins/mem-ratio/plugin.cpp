// SPDX-License-Identifier: Apache-2.0
//
// mem-ratio's entry: what it is, its options, its table.
#include <lmkit/plugin_sdk.hpp>

#include "mem_ratio.hpp"

namespace {

using namespace lmkit::plugin;

constexpr lmkit_option ratio =
    number_option("ratio", "share of the memory left after weights and workspace (0.8 unless bytes or tokens is given)", nullptr, 0.001, 1);
constexpr lmkit_option bytes = text_option("bytes", "size of the KV pool, such as 512MiB or 1.5G", nullptr);
constexpr lmkit_option tokens = integer_option("tokens", "size of the KV pool in tokens", nullptr, 1, 1e12);
constexpr lmkit_option max_share =
    number_option("max-share", "largest share of the pool for one sequence while others run or wait", "1", 0.001, 1);

}  // namespace

LMKIT_PLUGIN_ENTRY = describe("mem-ratio", "1.0.0", "KV pool sized by ratio, bytes or tokens, with a fair share for each sequence",
                              "Apache-2.0", options<ratio, bytes, tokens, max_share>,
                              serves<lmkit::allocator_table<lmkit::mem_ratio::MemRatio>>);
