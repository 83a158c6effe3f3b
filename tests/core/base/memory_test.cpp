// SPDX-License-Identifier: Apache-2.0
//
// What control groups leave of the host's memory, of folders as the kernel shows them.
#include <lmkit/base/memory.hpp>

#include "../../support/temporary_directory.hpp"

#include <catch.hpp>

#include <limits>
#include <string>

using namespace lmkit;
using lmkit_test::TemporaryDirectory;

TEST_CASE("the least that a control group or one above it leaves counts, without pages of files") {
  const TemporaryDirectory folder;
  const std::string mount = folder.path().string();
  const auto group = [&](const std::string& path, const std::string& limit, int used, int active, int inactive) {
    folder.write(path + "/memory.max", limit + "\n");
    folder.write(path + "/memory.current", std::to_string(used) + "\n");
    folder.write(path + "/memory.stat", "anon 7\nfile 300\ninactive_file " + std::to_string(inactive) + "\nactive_file " + std::to_string(active) + "\n");
  };
  const auto left_of = [&](const std::string& membership) { return control_group_left(folder.write("cgroup", membership), mount); };
  group("outer", "5000", 1000, 0, 0);
  group("outer/inner", "3000", 2500, 200, 100);
  group("outer/free", "max", 2500, 200, 100);
  group("outer/cached", "3000", 2900, 4000, 0);  // counted at another moment

  CHECK(left_of("0::/outer/inner\n") == 800);
  CHECK(left_of("0::/outer/free\n") == 4000);
  CHECK(left_of("0::/outer/cached\n") == 3000);
  CHECK(left_of("0::/outer/unseen/by/a/container\n") == 4000);
  CHECK(left_of("0::/\n") == std::numeric_limits<std::int64_t>::max());
  CHECK(left_of("nonsense\n::\n") == std::numeric_limits<std::int64_t>::max());
  CHECK(control_group_left(mount + "/none", mount) == std::numeric_limits<std::int64_t>::max());
}

TEST_CASE("control groups of the kernel's first interface count too") {
  const TemporaryDirectory folder;
  const std::string mount = folder.path().string();
  folder.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  folder.write("memory/job/memory.limit_in_bytes", "6000\n");
  folder.write("memory/job/memory.usage_in_bytes", "5000\n");
  folder.write("memory/job/memory.stat", "total_inactive_file 400\ntotal_active_file 50\ninactive_file 999\n");
  const std::string membership = folder.write("cgroup", "3:cpuset:/job\n2:cpu,memory:/job\n0::/\n");
  CHECK(control_group_left(membership, mount) == 1450);
  CHECK(available_memory() > 0);
}
