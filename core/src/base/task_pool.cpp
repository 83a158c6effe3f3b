// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/task_pool.hpp>

#include <lmkit/base/error.hpp>

#include <sched.h>

#include <atomic>
#include <cassert>
#include <mutex>
#include <string>
#include <system_error>
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
  // The job that runs. Written only while no index of it is open, read only to claim one.
  alignas(64) std::atomic<lmkit_task> task{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<std::int32_t> count{0};
  // High half: the job's number; low half: its indices that nobody has claimed. One word, so that a worker that comes
  // late can never claim from a job it has not read. The caller waits for claimed indices only, not for workers.
  alignas(64) std::atomic<std::uint64_t> open{0};
  alignas(64) std::atomic<std::int32_t> finished{0};  // indices
  alignas(64) std::atomic<std::uint32_t> bell{0};     // rung for a new job, and to stop
  std::atomic<bool> stopping{false};
  std::mutex failure_mutex;
  std::string worker_failure;
  std::vector<std::jthread> threads;  // last: they use all of the above

  ~Impl() {
    stopping.store(true, std::memory_order_relaxed);
    ring();
  }

  // Claims indices until none is open; says how many.
  std::int32_t run_share(int worker) noexcept {
    std::int32_t done = 0;
    for (std::uint64_t ticket = open.load(std::memory_order_acquire); static_cast<std::uint32_t>(ticket) != 0;) {
      // These belong to the ticket's job if the exchange succeeds: an open index keeps the job alive.
      const lmkit_task my_task = task.load(std::memory_order_relaxed);
      void* const my_context = context.load(std::memory_order_relaxed);
      const std::int32_t index = count.load(std::memory_order_relaxed) - static_cast<std::int32_t>(ticket);
      if (!open.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      my_task(my_context, index, worker);
      ++done;
      ticket = open.load(std::memory_order_acquire);
    }
    return done;
  }

  void work(int worker) noexcept {
    for (std::uint32_t heard = 0;;) {
      for (int spin = 0; bell.load(std::memory_order_acquire) == heard; ++spin) {
        if (spin < spins_before_sleep) pause();
        else bell.wait(heard, std::memory_order_acquire);
      }
      heard = bell.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_relaxed)) return;
      const std::int32_t done = run_share(worker);
      if (!failure_reason.empty()) {
        const std::lock_guard lock(failure_mutex);
        worker_failure = std::exchange(failure_reason, {});
      }
      if (done > 0) finished.fetch_add(done, std::memory_order_release);
    }
  }

  void ring() noexcept {
    bell.fetch_add(1, std::memory_order_release);
    bell.notify_all();
  }

  void parallel_for(std::int32_t indices, lmkit_task body, void* body_context) noexcept {
    if (threads.empty() || indices <= 1) {
      for (std::int32_t i = 0; i < indices; ++i) body(body_context, i, 0);
      return;
    }
    task.store(body, std::memory_order_relaxed);
    context.store(body_context, std::memory_order_relaxed);
    count.store(indices, std::memory_order_relaxed);
    finished.store(0, std::memory_order_relaxed);
    const std::uint64_t number = (open.load(std::memory_order_relaxed) >> 32) + 1;
    open.store(number << 32 | static_cast<std::uint32_t>(indices), std::memory_order_release);
    ring();
    const std::int32_t rest = indices - run_share(0);
    for (int spin = 0; finished.load(std::memory_order_acquire) != rest; ++spin) {
      if (spin < spins_before_yield) pause();
      else std::this_thread::yield();
    }
    if (rest == 0) return;
    const std::lock_guard lock(failure_mutex);
    if (!worker_failure.empty()) failure_reason = std::exchange(worker_failure, {});
  }

  static Impl& of(lmkit_stream* stream) noexcept { return *reinterpret_cast<Impl*>(stream); }
};

TaskPool::TaskPool(int threads) : impl_(std::make_unique<Impl>()) {
  assert(threads >= 1);
  try {
    for (int worker = 1; worker < threads; ++worker) impl_->threads.emplace_back([impl = impl_.get(), worker] { impl->work(worker); });
  } catch (const std::system_error& refused) {
    throw Error(ErrorKind::runtime, "the system refuses thread " + std::to_string(impl_->threads.size() + 2) + " of " + std::to_string(threads) + ": " + refused.what(), {},
                "a smaller --threads");
  }
}

TaskPool::~TaskPool() = default;

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
