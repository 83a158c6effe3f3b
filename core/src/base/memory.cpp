// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/memory.hpp>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

namespace lmkit {
namespace {

std::int64_t first_number(const char* path, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : otherwise;
}

std::int64_t mem_available() {
  std::ifstream file("/proc/meminfo");
  for (std::string key; file >> key;) {
    std::int64_t kib = 0;
    if (key == "MemAvailable:" && file >> kib) return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::numeric_limits<std::int64_t>::max();
}

// What the process's control group leaves: version 2 first, version 1 where that is mounted; "max" is no number.
std::int64_t cgroup_left() {
  constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();
  std::int64_t left = unlimited;
  for (const auto& [limit, used] : {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
                                    std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const std::int64_t bytes = first_number(limit, unlimited);
    if (bytes != unlimited) left = std::min(left, std::max<std::int64_t>(0, bytes - first_number(used, 0)));
  }
  return left;
}

}  // namespace

std::int64_t available_memory() { return std::min(mem_available(), cgroup_left()); }

}  // namespace lmkit
