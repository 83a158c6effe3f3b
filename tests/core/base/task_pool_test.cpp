// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <utility>
#include <vector>

using namespace lmkit;

TEST_CASE("parallel_for runs every index once, and no worker twice at a time") {
  for (int threads : {1, 2, 3, 7}) {
    TaskPool pool(threads);
    const Stream stream = pool.stream();
    REQUIRE(stream.workers() == threads);
    std::vector<std::atomic<int>> busy(threads);
    for (int count : {0, 1, 2, 5, 100}) {
      std::vector<std::atomic<int>> runs(count);
      std::atomic<int> clashes{0};
      for (int repeat = 0; repeat < 50; ++repeat)
        stream.parallel_for(count, [&](int index, int worker) {
          if (busy[worker].fetch_add(1) != 0) ++clashes;
          ++runs[index];
          busy[worker].fetch_sub(1);
        });
      CHECK(clashes == 0);
      for (auto& r : runs) CHECK(r == 50);
    }
  }
}

TEST_CASE("many small loops in a row lose and repeat nothing, with more threads than CPUs") {
  TaskPool pool(5);
  const Stream stream = pool.stream();
  std::vector<int> runs(64);
  std::int64_t wrong = 0;
  for (int job = 0; job < 20000; ++job) {
    const int count = job % 64 + 1;
    stream.parallel_for(count, [&](int index, int) { runs[index] += job; });  // an index twice would be a race
    for (int i = 0; i < count; ++i) wrong += std::exchange(runs[i], 0) != job;
  }
  CHECK(wrong == 0);
}

TEST_CASE("the reason of a failure inside a task reaches the thread that started the loop") {
  TaskPool pool(3);
  const Stream stream = pool.stream();
  stream.parallel_for(8, [&](int index, int) {
    if (index == 5) stream.host->fail("index 5 is bad");
  });
  CHECK(last_failure() == "index 5 is bad");
  CHECK(last_failure().empty());
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which need more addresses than the test leaves
TEST_CASE("a thread that the system refuses is an error, and those that were started end") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(30);
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t bytes = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{256} << 20);
    const rlimit limit{bytes, bytes};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(3);
    try {
      TaskPool pool(1000);
    } catch (const Error& refused) {
      _exit(refused.kind() == ErrorKind::runtime ? 0 : 2);
    }
    _exit(1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif
