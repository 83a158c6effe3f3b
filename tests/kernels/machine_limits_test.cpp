// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/machine_limits.hpp>

#include "kernel_test.hpp"

#include <temporary_directory.hpp>

#include <string>

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("machine limits are measured on every instruction set, for any size of buffer") {
  TaskPool pool(2);
  on_each_isa([&] {
    for (std::int64_t bytes : {std::int64_t{1}, std::int64_t{100'000}, std::int64_t{4} << 20}) CHECK(read_bandwidth(bytes, pool.stream()) > 1e6);
    CHECK(peak_int8_rate(pool.stream()) > 1e6);
    CHECK(peak_float_rate(pool.stream()) > 1e6);
  });
  CHECK(last_cache_bytes() >= 1 << 16);
}

TEST_CASE("last caches are counted once, whoever shares them") {
  const lmkit_test::TemporaryDirectory folder;
  const auto describe = [&](const std::string& cpu, int level, const std::string& size, const std::string& sharers) {
    const std::string index = cpu + "/cache/index" + std::to_string(level) + "/";
    folder.write(index + "level", std::to_string(level) + "\n");
    folder.write(index + "size", size + "\n");
    folder.write(index + "shared_cpu_list", sharers + "\n");
  };
  CHECK(last_cache_bytes(folder.path()) == 32 << 20);
  folder.write("cpufreq/boost", "1\n");
  for (const std::string cpu : {"cpu0", "cpu1"}) {
    describe(cpu, 3, "16384K", "0-1");
    describe(cpu, 1, "48K", cpu.substr(3));
    describe(cpu, 2, "1024K", cpu.substr(3));
  }
  CHECK(last_cache_bytes(folder.path()) == 16 << 20);
  describe("cpu2", 3, "8192K", "2");
  describe("cpu3", 2, "2048K", "3");  // without a third level
  CHECK(last_cache_bytes(folder.path()) == 26 << 20);
}
