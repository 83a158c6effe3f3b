// SPDX-License-Identifier: Apache-2.0
//
// Barrier: the meeting point of a fixed number of threads that one of them can break for good.
//
// One word holds the number of completed meetings and, in its top bit, whether the barrier is broken. So a thread that was
// late to notice that its meeting took place still learns so, even if another broke the barrier right after it.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace lmkit::tp_threads {

class Barrier {
 public:
  explicit Barrier(int threads)
      : threads_(threads), spins_(static_cast<unsigned>(threads) <= std::thread::hardware_concurrency() ? spins_on_own_cpu : 0) {}

  // Returns true when all threads have come. What each did before is visible to all after. False: the barrier is broken.
  bool meet() noexcept {
    const std::uint32_t before = state_.load(std::memory_order_acquire);
    if (before & broken) return false;
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      const std::uint32_t after = (before + 1) & ~broken;
      std::uint32_t expected = before;
      if (!state_.compare_exchange_strong(expected, after, std::memory_order_acq_rel)) return false;  // broken meanwhile
      state_.notify_all();
      return true;
    }
    return wait_for_change(before);
  }

  // All who wait and all who come from now on are sent away.
  void break_up() noexcept {
    state_.fetch_or(broken, std::memory_order_acq_rel);
    state_.notify_all();
  }

 private:
  static constexpr std::uint32_t broken = 0x80000000u;
  // A step meets every few microseconds. 4000 pauses are 40 to 200 us: long enough for a neighbour's share of a layer, and
  // pointless when there are more threads than CPUs.
  static constexpr int spins_on_own_cpu = 4000;
  static constexpr int yields = 100;

  bool wait_for_change(std::uint32_t before) noexcept {
    std::uint32_t now = state_.load(std::memory_order_acquire);
    for (int spin = 0; now == before; now = state_.load(std::memory_order_acquire), ++spin) {
      if (spin < spins_) pause();
      else if (spin < spins_ + yields) std::this_thread::yield();
      else state_.wait(before, std::memory_order_acquire);
    }
    return (now & ~broken) != before;
  }

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const int threads_;
  const int spins_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> state_{0};  // meetings completed | broken
};

}  // namespace lmkit::tp_threads
