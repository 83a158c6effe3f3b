// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <lmkit/base/task_pool.hpp>
#include <lmkit/base/memory.hpp>
#include <lmkit/kernels/machine_limits.hpp>

#include <fmt/format.h>

#include <fstream>

#include <unistd.h>

namespace lmkit::cli {
namespace {

std::string first_line(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != line.npos) return line.substr(colon + 2);
  return "unknown CPU";
}

std::vector<CpuCache> cpu_caches() {
  std::vector<CpuCache> caches;
  for (int i = 0; i < 8; ++i) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", i);
    const std::string type = first_line(folder + "type"), size = first_line(folder + "size"), level = first_line(folder + "level");
    if (type.empty() || type == "Instruction" || size.empty()) continue;
    caches.push_back({std::atoi(level.c_str()), std::atoll(size.c_str()) * (size.back() == 'M' ? 1 << 20 : 1 << 10)});
  }
  return caches;
}

}  // namespace

Machine this_machine() {
  return {cpu_name(), cpu_caches(), static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), available_memory()};
}

double read_bandwidth(int threads, std::int64_t bytes) {
  TaskPool pool(threads);
  return kernels::read_bandwidth(bytes, pool.stream());
}

}  // namespace lmkit::cli
