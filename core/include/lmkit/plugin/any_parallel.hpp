// SPDX-License-Identifier: Apache-2.0
//
// AnyParallel: a ParallelStrategy behind an "lmkit.parallel/1" table, chosen at run time.
//
// The Group outlives its ranks. Each rank is joined, used and destroyed by its own thread.
#pragma once

#include <lmkit/builtin/one_device.hpp>
#include <lmkit/concepts/parallel_table.hpp>
#include <lmkit/plugin/provider.hpp>

#include <memory>
#include <vector>

namespace lmkit {

class AnyParallel {
 public:
  using Source = Provider<lmkit_parallel>;

  template <ParallelStrategy P>
  static Source built_in(std::string name) {
    return {parallel_table<P>, std::move(name), {}};
  }

  class Group {
   public:
    Group() : Group(built_in<OneDevice>("one-device")) {}
    explicit Group(const Source& source);  // throws Error(plugin) with the plugin's reason

    Ranks ranks() const noexcept { return ranks_; }
    Shard shard(int rank, Role role, std::int64_t units) const noexcept {
      return table_.shard(self_.get(), rank, static_cast<std::int32_t>(role), units);
    }
    std::int64_t workspace_bytes(std::int64_t max_elements) const noexcept { return table_.workspace_bytes(self_.get(), max_elements); }

    // workspace outlives the rank. Throws Error(plugin) with the plugin's reason.
    AnyParallel join(int rank, std::span<std::byte> workspace);

   private:
    friend class AnyParallel;
    lmkit_parallel table_;
    std::string name_;
    std::unique_ptr<void, void (*)(void*)> self_;
    Ranks ranks_{};
  };

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  Shard shard(Role role, std::int64_t units) const noexcept {
    return table_.shard(group_, rank_, static_cast<std::int32_t>(role), units);
  }

  Status all_reduce_sum(std::span<float> data, Stream stream) noexcept {
    return Status{table_.all_reduce_sum(self_.get(), data.data(), static_cast<std::int64_t>(data.size()), LMKIT_F32, stream.handle)};
  }

  Status all_gather(std::span<const float> mine, std::span<float> all, std::int64_t rows, std::span<const std::int64_t> shards,
                    Stream stream) noexcept {
    std::int64_t row_bytes = 0;
    for (std::size_t r = 0; r < shard_bytes_.size(); ++r) {
      shard_bytes_[r] = shards[r] * static_cast<std::int64_t>(sizeof(float));
      row_bytes += shard_bytes_[r];
    }
    return Status{table_.all_gather(self_.get(), mine.data(), all.data(), rows, row_bytes, shard_bytes_.data(), stream.handle)};
  }

  Status broadcast(std::span<std::byte> data, int root, Stream stream) noexcept {
    return Status{table_.broadcast(self_.get(), data.data(), static_cast<std::int64_t>(data.size()), root, stream.handle)};
  }

 private:
  AnyParallel(const Group& group, int rank, void* self);

  lmkit_parallel table_;
  const void* group_;
  int rank_, size_;
  std::vector<std::int64_t> shard_bytes_;  // (size), scratch of all_gather
  std::unique_ptr<void, void (*)(void*)> self_;
};

static_assert(ParallelStrategy<AnyParallel>);

}  // namespace lmkit
