// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/machine_limits.hpp>

#include "machine_limits_kernels.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace lmkit::kernels {
namespace {

const LimitKernels& kernels_in_use() noexcept {
  return visit_isa(cpu_isa(), [](auto isa) -> const LimitKernels& { return limit_kernels<decltype(isa)>(); });
}

// The best of several runs of work(), which says how much it did, per second; a tenth of a second in all.
template <class Work>
double best_rate(Work work) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](auto duration) { return std::chrono::duration<double>(duration).count(); };
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    const double amount = work();
    best = std::max(best, amount / seconds(Clock::now() - begin));
  } while (seconds(Clock::now() - start) < 0.1);
  return best;
}

double rate_of(double (*operations)(std::int64_t) noexcept, Stream stream) {
  return best_rate([&] {
    std::atomic<double> total = 0;
    stream.parallel_for(stream.workers(), [&](std::int32_t, int) { total += operations(100'000); });
    return total.load();
  });
}

}  // namespace

double read_bandwidth(std::int64_t bytes, Stream stream) {
  constexpr std::int64_t line = 4096;
  const int workers = stream.workers();
  const std::int64_t share = std::max(bytes / workers / line, std::int64_t{1}) * line;
  const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(line, static_cast<std::size_t>(share * workers)), std::free);
  if (!buffer) return 0;
  auto* data = static_cast<std::byte*>(buffer.get());
  stream.parallel_for(workers, [&](std::int32_t i, int) { std::memset(data + i * share, 1, static_cast<std::size_t>(share)); });
  const LimitKernels& kernels = kernels_in_use();
  const std::int64_t repeats = std::max<std::int64_t>(1, (1 << 20) / share);  // a run must outlast the clock's grain
  return best_rate([&] {
    stream.parallel_for(workers, [&](std::int32_t i, int) {
      for (std::int64_t r = 0; r < repeats; ++r) kernels.read(data + i * share, share);
    });
    return static_cast<double>(share) * workers * static_cast<double>(repeats);
  });
}

double peak_int8_rate(Stream stream) { return rate_of(kernels_in_use().int8_operations, stream); }
double peak_float_rate(Stream stream) { return rate_of(kernels_in_use().float_operations, stream); }

// sysconf would say how much cache the processor was sold with, of which a virtual machine may see a twelfth.
std::int64_t last_cache_bytes(const std::filesystem::path& cpus) {
  std::map<std::string, std::int64_t> last;  // by the CPUs that share it
  std::error_code none;
  for (const auto& cpu : std::filesystem::directory_iterator(cpus, none)) {
    int deepest = 0;
    std::pair<std::string, std::int64_t> found;
    for (const auto& index : std::filesystem::directory_iterator(cpu.path() / "cache", none)) {
      int level = 0;
      std::int64_t kib = 0;
      std::string sharers;
      std::ifstream(index.path() / "level") >> level;
      std::ifstream(index.path() / "size") >> kib;  // "32768K"
      std::ifstream(index.path() / "shared_cpu_list") >> sharers;
      if (level > deepest) deepest = level, found = {sharers, kib * 1024};
    }
    if (deepest > 0) last.insert(found);
  }
  std::int64_t sum = 0;
  for (const auto& [sharers, bytes] : last) sum += bytes;
  return sum > 0 ? sum : std::int64_t{32} << 20;
}

}  // namespace lmkit::kernels
