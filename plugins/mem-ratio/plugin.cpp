// SPDX-License-Identifier: Apache-2.0
//
// mem-ratio's entry: what it is, its options, its table.
#include "mem_ratio.hpp"

#include <lmkit/concepts/allocator_table.hpp>

#include <string_view>

namespace {

using lmkit::mem_ratio::MemRatio;

constexpr lmkit_option ratio{.struct_size = sizeof(lmkit_option), .type = LMKIT_OPTION_FLOAT, .name = "ratio",
                             .help = "share of the memory left after weights and workspace (0.8 unless bytes or tokens is given)",
                             .default_value = nullptr, .minimum = 0.001, .maximum = 1, .choices = nullptr};
constexpr lmkit_option bytes{.struct_size = sizeof(lmkit_option), .type = LMKIT_OPTION_STRING, .name = "bytes",
                             .help = "size of the KV pool, such as 512MiB or 1.5G", .default_value = nullptr, .minimum = 0, .maximum = 0,
                             .choices = nullptr};
constexpr lmkit_option tokens{.struct_size = sizeof(lmkit_option), .type = LMKIT_OPTION_INT, .name = "tokens",
                              .help = "size of the KV pool in tokens", .default_value = nullptr, .minimum = 1, .maximum = 1e12,
                              .choices = nullptr};
constexpr lmkit_option max_share{.struct_size = sizeof(lmkit_option), .type = LMKIT_OPTION_FLOAT, .name = "max-share",
                                 .help = "largest share of the pool for one sequence while others run or wait", .default_value = "1",
                                 .minimum = 0.001, .maximum = 1, .choices = nullptr};

constexpr const lmkit_option* options[] = {&ratio, &bytes, &tokens, &max_share, nullptr};
constexpr const char* extensions[] = {LMKIT_ALLOCATOR_EXTENSION, nullptr};
constexpr lmkit_build build{.struct_size = sizeof(lmkit_build), .compiler = "g++ " __VERSION__, .cpu_isas = "baseline", .cuda_archs = ""};

const void* extension(const char* id) { return std::string_view(id) == LMKIT_ALLOCATOR_EXTENSION ? &lmkit::allocator_table<MemRatio> : nullptr; }

}  // namespace

extern "C" __attribute__((visibility("default"))) constexpr lmkit_plugin lmkit_plugin_entry{
    .struct_size = sizeof(lmkit_plugin),
    .abi_major = LMKIT_ABI_MAJOR,
    .abi_minor = LMKIT_ABI_MINOR,
    .id = "mem-ratio",
    .version = "1.0.0",
    .summary = "KV pool sized by ratio, bytes or tokens, with a fair share for each sequence",
    .licence = "Apache-2.0",
    .build = &build,
    .extensions = extensions,
    .options = options,
    .extension = extension,
};
