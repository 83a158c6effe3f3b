// SPDX-License-Identifier: Apache-2.0
//
// What this machine is and how fast its memory is read: the limit that decoding is measured against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lmkit::cli {

struct CpuCache {
  int level = 0;
  std::int64_t bytes = 0;
};

struct Machine {
  std::string cpu;  // the model's name
  std::vector<CpuCache> caches;  // data and unified, of the first CPU
  std::int64_t memory = 0, available = 0;  // bytes
};

Machine this_machine();

// Bytes per second that `threads` threads read from a buffer of `bytes`.
double read_bandwidth(int threads, std::int64_t bytes);

}  // namespace lmkit::cli
