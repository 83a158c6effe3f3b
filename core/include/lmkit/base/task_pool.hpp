// SPDX-License-Identifier: Apache-2.0
//
// TaskPool: the threads behind a CPU stream, and the host table (lmkit_host) that plugins are given.
#pragma once

#include <lmkit/base/stream.hpp>

#include <memory>
#include <string>

namespace lmkit {

class TaskPool {
 public:
  // The caller of parallel_for is worker 0, so threads - 1 are started. threads >= 1. Throws Error(runtime) if the system refuses one.
  explicit TaskPool(int threads);
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // Valid while the pool lives. One thread at a time may use it.
  Stream stream() noexcept;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// CPUs this process may run on (its affinity mask), at least 1.
int available_cpus();

// The one host table of this process.
const lmkit_host& host_table() noexcept;

// Takes the last reason given to host->fail on this thread or by a task that this thread ran; empty if none.
std::string last_failure();

}  // namespace lmkit
