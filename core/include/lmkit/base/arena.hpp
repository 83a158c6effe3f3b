// SPDX-License-Identifier: Apache-2.0
//
// Arena: one allocation for the whole life of a rank. Carver: cuts it into pieces, or only measures them, so that the
// same code writes the ledger and places what the ledger promised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace lmkit {

class Arena {
 public:
  virtual ~Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Large pages for bytes that will be used throughout: fewer page faults while loading, fewer TLB misses after. What is
  // used in parts only is cheaper without. Before the first touch; nothing where memory has no pages to choose.
  virtual void use_large_pages(std::int64_t, std::int64_t) noexcept {}

  std::byte* data() const noexcept { return data_; }
  std::int64_t bytes() const noexcept { return bytes_; }

 protected:
  Arena(std::byte* data, std::int64_t bytes) noexcept : data_(data), bytes_(bytes) {}

 private:
  std::byte* data_;
  std::int64_t bytes_;
};

// Zeroed, page-aligned memory that the system backs when it is first touched. Throws Error(memory).
class HostArena final : public Arena {
 public:
  explicit HostArena(std::int64_t bytes);
  ~HostArena() override;
  void use_large_pages(std::int64_t begin, std::int64_t end) noexcept override;
};

class Carver {
 public:
  static constexpr std::int64_t alignment = 256;

  explicit Carver(std::byte* base = nullptr) noexcept : base_(base) {}

  bool measures() const noexcept { return base_ == nullptr; }
  std::int64_t used() const noexcept { return used_; }

  // Room for `count` values; null data when measuring.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  std::span<T> take(std::int64_t count) noexcept {
    std::byte* const begin = base_ ? base_ + used_ : nullptr;
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    used_ += (bytes + alignment - 1) / alignment * alignment;
    return begin ? std::span<T>(reinterpret_cast<T*>(begin), static_cast<std::size_t>(count)) : std::span<T>();
  }

 private:
  std::byte* base_;
  std::int64_t used_ = 0;
};

}  // namespace lmkit
