// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/task_pool.hpp>

#include <sched.h>

#include <atomic>
#include <cassert>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace lmkit {
namespace {

thread_local std::string failure_reason;

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// A decode step forks and joins a few hundred times with microseconds in between: spin through those gaps, and sleep
// only when the engine itself is idle. 20 000 pauses are 0.2 to 1 ms.
constexpr int spins_before_sleep = 20000;
// A worker that has not been scheduled yet (more threads than CPUs) needs this CPU more than the waiting caller does.
constexpr int spins_before_yield = 2000;

}  // namespace

struct TaskPool::Impl {
  struct alignas(64) Job {
    lmkit_task task = nullptr;
    void* context = nullptr;
    std::int32_t count = 0;
  };

  Job job;
  alignas(64) std::atomic<std::uint32_t> epoch{0};  // a new value: a new job, or stopping
  alignas(64) std::atomic<std::int32_t> next{0};
  alignas(64) std::atomic<std::int32_t> working{0};  // workers that have not finished the job
  std::atomic<bool> stopping{false};
  std::mutex failure_mutex;
  std::string worker_failure;
  std::vector<std::jthread> threads;

  void run_share(int worker) noexcept {
    for (std::int32_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < job.count;) job.task(job.context, i, worker);
  }

  void work(int worker) noexcept {
    for (std::uint32_t seen = 0;;) {
      for (int spin = 0; epoch.load(std::memory_order_acquire) == seen; ++spin) {
        if (spin < spins_before_sleep) pause();
        else epoch.wait(seen, std::memory_order_acquire);
      }
      ++seen;
      if (stopping.load(std::memory_order_relaxed)) return;
      run_share(worker);
      if (!failure_reason.empty()) {
        const std::lock_guard lock(failure_mutex);
        worker_failure = std::exchange(failure_reason, {});
      }
      working.fetch_sub(1, std::memory_order_release);
    }
  }

  void parallel_for(std::int32_t count, lmkit_task task, void* context) noexcept {
    if (threads.empty() || count <= 1) {
      for (std::int32_t i = 0; i < count; ++i) task(context, i, 0);
      return;
    }
    job = {task, context, count};
    next.store(0, std::memory_order_relaxed);
    working.store(static_cast<std::int32_t>(threads.size()), std::memory_order_relaxed);
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    run_share(0);
    for (int spin = 0; working.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < spins_before_yield) pause();
      else std::this_thread::yield();
    }
    const std::lock_guard lock(failure_mutex);
    if (!worker_failure.empty()) failure_reason = std::exchange(worker_failure, {});
  }

  static Impl& of(lmkit_stream* stream) noexcept { return *reinterpret_cast<Impl*>(stream); }
};

TaskPool::TaskPool(int threads) : impl_(std::make_unique<Impl>()) {
  assert(threads >= 1);
  for (int worker = 1; worker < threads; ++worker) impl_->threads.emplace_back([impl = impl_.get(), worker] { impl->work(worker); });
}

TaskPool::~TaskPool() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
}

Stream TaskPool::stream() noexcept { return {reinterpret_cast<lmkit_stream*>(impl_.get()), &host_table()}; }

int available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return std::max(1u, std::thread::hardware_concurrency());
}

const lmkit_host& host_table() noexcept {
  static constexpr lmkit_host table{
      .struct_size = sizeof(lmkit_host),
      .abi_major = LMKIT_ABI_MAJOR,
      .abi_minor = LMKIT_ABI_MINOR,
      .fail = [](const char* reason) { failure_reason = reason; },
      .parallel_for = [](lmkit_stream* stream, std::int32_t count, lmkit_task task,
                         void* context) { TaskPool::Impl::of(stream).parallel_for(count, task, context); },
      .workers = [](lmkit_stream* stream) { return static_cast<std::int32_t>(TaskPool::Impl::of(stream).threads.size()) + 1; },
  };
  return table;
}

std::string last_failure() { return std::exchange(failure_reason, {}); }

}  // namespace lmkit
