// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <lmkit/base/task_pool.hpp>
#include <lmkit/engine/memory_plan.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>

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

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
std::uint64_t sum_of(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[32] = {};  // independent, so that the loads are not held up by the additions
  for (std::int64_t i = 0; i + 32 <= count; i += 32)
    for (int lane = 0; lane < 32; ++lane) sums[lane] += words[i + lane];
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

Machine this_machine() {
  return {cpu_name(), cpu_caches(), static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), available_memory()};
}

double read_bandwidth(int threads, std::int64_t bytes) {
  constexpr int passes = 8;
  constexpr std::int64_t part_words = 32 << 10;  // 256 KiB, so that threads end together
  const auto parts = static_cast<std::int32_t>(std::max<std::int64_t>(1, bytes / 8 / part_words));
  const std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[static_cast<std::size_t>(parts * part_words)]);
  TaskPool pool(threads);
  const Stream stream = pool.stream();
  stream.parallel_for(parts, [&](int part, int) { std::fill_n(words.get() + part * part_words, part_words, 1); });
  std::atomic<std::uint64_t> total{0};
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    stream.parallel_for(parts, [&](int part, int) { total += sum_of(words.get() + part * part_words, part_words); });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(parts * part_words * 8) / elapsed.count());
  }
  return total == 0 ? 0 : best;  // reading the sum keeps the loads
}

}  // namespace lmkit::cli
