// SPDX-License-Identifier: Apache-2.0
//
// OneDevice: the parallel strategy of one rank, which holds the whole model. Sums are what they are.
#pragma once

#include <lmkit/concepts/parallel_strategy.hpp>

#include <cassert>
#include <cstring>

namespace lmkit {

class OneDevice {
 public:
  class Group {
   public:
    Ranks ranks() const noexcept { return {.size = 1, .local_begin = 0, .local_end = 1, .device = LMKIT_CPU}; }
    Shard shard(int, Role, std::int64_t units) const noexcept { return {0, units}; }
    std::int64_t workspace_bytes(std::int64_t) const noexcept { return 0; }
    OneDevice join(int, std::span<std::byte>) { return {}; }
  };

  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }
  Shard shard(Role, std::int64_t units) const noexcept { return {0, units}; }

  Status all_reduce_sum(std::span<float>, Stream) noexcept { return Status::ok; }

  Status all_gather(std::span<const float> mine, std::span<float> all, std::int64_t, std::span<const std::int64_t>,
                    Stream) noexcept {
    assert(mine.size() == all.size());
    if (mine.data() != all.data()) std::memcpy(all.data(), mine.data(), mine.size_bytes());
    return Status::ok;
  }

  Status broadcast(std::span<std::byte>, int, Stream) noexcept { return Status::ok; }
};

static_assert(ParallelStrategy<OneDevice>);

}  // namespace lmkit
