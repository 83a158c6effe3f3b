// SPDX-License-Identifier: Apache-2.0
//
// tp-threads' entry: what it is, its options, its table.
#include "tp_threads.hpp"

#include <lmkit/concepts/parallel_table.hpp>

#include <string_view>

namespace {

using lmkit::tp_threads::most_ranks;
using lmkit::tp_threads::TpThreads;

constexpr lmkit_option size{.struct_size = sizeof(lmkit_option), .type = LMKIT_OPTION_INT, .name = "size",
                            .help = "ranks, each a thread with its part of the model", .default_value = "2", .minimum = 1,
                            .maximum = most_ranks, .choices = nullptr};

constexpr const lmkit_option* options[] = {&size, nullptr};
constexpr const char* extensions[] = {LMKIT_PARALLEL_EXTENSION, nullptr};
constexpr lmkit_build build{.struct_size = sizeof(lmkit_build), .compiler = "g++ " __VERSION__, .cpu_isas = "baseline", .cuda_archs = ""};

const void* extension(const char* id) { return std::string_view(id) == LMKIT_PARALLEL_EXTENSION ? &lmkit::parallel_table<TpThreads> : nullptr; }

}  // namespace

extern "C" __attribute__((visibility("default"))) constexpr lmkit_plugin lmkit_plugin_entry{
    .struct_size = sizeof(lmkit_plugin),
    .abi_major = LMKIT_ABI_MAJOR,
    .abi_minor = LMKIT_ABI_MINOR,
    .id = "tp-threads",
    .version = "1.0.0",
    .summary = "tensor parallelism between threads of one process",
    .licence = "Apache-2.0",
    .build = &build,
    .extensions = extensions,
    .options = options,
    .extension = extension,
};
