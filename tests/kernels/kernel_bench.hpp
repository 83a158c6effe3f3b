// SPDX-License-Identifier: Apache-2.0
//
// What the hidden benchmark cases share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "kernel_test.hpp"

namespace lmkit::kernels::test {

inline int bench_threads() {
  const char* wish = std::getenv("LMKIT_BENCH_THREADS");
  return wish ? std::max(1, std::atoi(wish)) : 2;
}

// The best of many runs, for 0.3 s: what the work costs when nothing else runs on the machine.
template <class Work>
double seconds_of(Work work) {
  double best = 1e30;
  const auto start = std::chrono::steady_clock::now();
  do {
    const auto begin = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  } while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(300));
  return best;
}

}  // namespace lmkit::kernels::test
