// SPDX-License-Identifier: Apache-2.0
//
// What this machine can do at best on a stream's threads: the measures a kernel's speed is held against.
// Each call works for about a tenth of a second. [any-thread] with the stream to itself
#pragma once

#include <lmkit/base/stream.hpp>

#include <cstdint>
#include <filesystem>

namespace lmkit::kernels {

// Bytes per second when the threads read a buffer of `bytes` again and again, each its own part. From memory when it
// is larger than the last cache (see last_cache_bytes), from a cache when it is smaller.
double read_bandwidth(std::int64_t bytes, Stream stream);

// Operations per second (a multiply and an add are two) from registers: int8 dot products and float fused
// multiply-adds of the instruction set in use.
double peak_int8_rate(Stream stream);
double peak_float_rate(Stream stream);

// The last caches of all CPUs together, as the system tells; 32 MiB if it does not. cpus: where Linux describes them.
std::int64_t last_cache_bytes(const std::filesystem::path& cpus = "/sys/devices/system/cpu");

}  // namespace lmkit::kernels
