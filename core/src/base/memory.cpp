// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/memory.hpp>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

namespace lmkit {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();

std::int64_t first_number(const fs::path& path, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : otherwise;
}

// Of lines "name number".
std::int64_t number_named(const fs::path& path, std::string_view name, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t number = 0;
  for (std::string key; file >> key; file.ignore(std::numeric_limits<std::streamsize>::max(), '\n'))
    if (key == name && file >> number) return number;
  return otherwise;
}

std::int64_t mem_available() {
  const std::int64_t kib = number_named("/proc/meminfo", "MemAvailable:", unlimited);
  return kib == unlimited ? unlimited : kib * 1024;
}

// Files of a control group's folder, in the two versions of the kernel's interface.
struct Controller {
  fs::path folder;  // below the mount
  const char *limit, *used, *active, *inactive;
};
const Controller version_2{"", "memory.max", "memory.current", "active_file", "inactive_file"};
const Controller version_1{"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"};

// Pages of files count as used there, and are given up when memory is wanted.
std::int64_t left_in(const fs::path& group, const Controller& files) {
  const std::int64_t limit = first_number(group / files.limit, unlimited);  // "max" is no number
  if (limit > unlimited / 2) return unlimited;  // version 1 writes a number of that size
  const auto pages = [&](const char* name) { return number_named(group / "memory.stat", name, 0); };
  return std::clamp<std::int64_t>(limit - first_number(group / files.used, 0) + pages(files.active) + pages(files.inactive), 0, limit);
}

}  // namespace

std::int64_t control_group_left(const fs::path& membership, const fs::path& mount) {
  std::int64_t left = unlimited;
  std::ifstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // "0::/user.slice/a", or "5:memory:/docker/b" of version 1
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const bool is_version_2 = controllers == ",,";
    if (!is_version_2 && controllers.find(",memory,") == controllers.npos) continue;
    const Controller& files = is_version_2 ? version_2 : version_1;
    // The group, which a container may not see, and all above it.
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      left = std::min(left, left_in(mount / files.folder / group, files));
      if (group.empty()) break;
    }
  }
  return left;
}

std::int64_t available_memory() { return std::min(mem_available(), control_group_left()); }

}  // namespace lmkit
