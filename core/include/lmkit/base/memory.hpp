// SPDX-License-Identifier: Apache-2.0
//
// Host memory this process can still get.
#pragma once

#include <cstdint>
#include <filesystem>

namespace lmkit {

// The smaller of MemAvailable and what its control groups have left, in bytes.
std::int64_t available_memory();

// What the process's control group and those above it leave: the least of limit - used, where pages of files do not count as used.
// The largest number if nothing limits it. membership: as /proc/self/cgroup; mount: where the groups' folders are.
std::int64_t control_group_left(const std::filesystem::path& membership = "/proc/self/cgroup", const std::filesystem::path& mount = "/sys/fs/cgroup");

}  // namespace lmkit
