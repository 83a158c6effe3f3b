// SPDX-License-Identifier: Apache-2.0
//
// BlockPool: the KV cache's blocks by number. A block is held by exactly one lease, which gives it back when it ends.
//     free + held + cached == total
// Cached blocks hold nobody's tokens but keep what was in them; there are none as long as prefixes are not shared.
#pragma once

#include <cassert>
#include <cstdint>
#include <utility>
#include <vector>

namespace lmkit {

class BlockPool;

class BlockLease {
 public:
  BlockLease() = default;
  BlockLease(BlockLease&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), id_(other.id_) {}
  BlockLease& operator=(BlockLease&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~BlockLease();

  std::int32_t id() const noexcept { return id_; }

 private:
  friend BlockPool;
  BlockLease(BlockPool& pool, std::int32_t id) noexcept : pool_(&pool), id_(id) {}

  BlockPool* pool_ = nullptr;
  std::int32_t id_ = -1;
};

// [engine-thread]
class BlockPool {
 public:
  explicit BlockPool(int blocks) {
    free_.reserve(blocks);
    for (int id = blocks; id-- > 0;) free_.push_back(id);
    is_held_.assign(blocks, false);
  }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool() { assert(held() == 0); }

  int total() const noexcept { return static_cast<int>(is_held_.size()); }
  int free() const noexcept { return static_cast<int>(free_.size()); }
  int cached() const noexcept { return 0; }
  int held() const noexcept { return held_; }
  bool is_held(std::int32_t id) const noexcept { return is_held_[id]; }

  // free() > 0. The block given back last is taken first: it is warm.
  BlockLease take() noexcept {
    assert(!free_.empty());
    const std::int32_t id = free_.back();
    free_.pop_back();
    is_held_[id] = true;
    ++held_;
    return {*this, id};
  }

 private:
  friend BlockLease;
  void give_back(std::int32_t id) noexcept {
    assert(is_held_[id]);
    is_held_[id] = false;
    --held_;
    free_.push_back(id);  // within the reserve
  }

  std::vector<std::int32_t> free_;
  std::vector<bool> is_held_;
  int held_ = 0;
};

inline BlockLease::~BlockLease() {
  if (pool_) pool_->give_back(id_);
}

}  // namespace lmkit
