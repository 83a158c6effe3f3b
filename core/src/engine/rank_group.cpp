// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/rank_group.hpp>

#include <lmkit/base/error.hpp>

#include <string>
#include <system_error>

namespace lmkit {

RankThreads::RankThreads(int count) {
  try {
    for (int rank = 0; rank < count; ++rank) threads_.emplace_back([this, rank] { work(rank); });
  } catch (const std::system_error& refused) {
    stop();
    throw Error(ErrorKind::runtime, "the system refuses a thread for each of " + std::to_string(count) + " ranks: " + refused.what(), {}, "fewer ranks");
  }
}

RankThreads::~RankThreads() { stop(); }

void RankThreads::stop() noexcept {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
}

void RankThreads::run(const std::function<void(int)>& job) noexcept {
  job_ = &job;
  busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (int left; (left = busy_.load(std::memory_order_acquire)) != 0;) busy_.wait(left, std::memory_order_acquire);
}

void RankThreads::work(int rank) noexcept {
  for (std::uint32_t seen = 0;;) {
    round_.wait(seen, std::memory_order_acquire);
    ++seen;
    if (stopping_) return;
    (*job_)(rank);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

}  // namespace lmkit
