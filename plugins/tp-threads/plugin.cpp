// SPDX-License-Identifier: Apache-2.0
//
// tp-threads' entry: what it is, its options, its table.
#include <lmkit/plugin_sdk.hpp>

#include "tp_threads.hpp"

namespace {

using namespace lmkit::plugin;

constexpr lmkit_option size = integer_option("size", "ranks, each a thread with its part of the model", "2", 1, lmkit::tp_threads::most_ranks);

}  // namespace

LMKIT_PLUGIN_ENTRY = describe("tp-threads", "1.0.0", "tensor parallelism between threads of one process", "Apache-2.0", options<size>,
                              serves<lmkit::parallel_table<lmkit::tp_threads::TpThreads>>);
