// SPDX-License-Identifier: Apache-2.0
//
// ParallelStrategy: who holds which part of the model, and how the parts add up.
//
// A strategy object is one rank's view, used by that rank's thread. Its Group is what all ranks of the process share:
// it says how many ranks there are and which part each holds, before any of them starts.
#pragma once

#include <lmkit/abi/parallel.h>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmkit {

enum class Role : std::int32_t {
  query_heads = LMKIT_ROLE_QUERY_HEADS,
  ffn = LMKIT_ROLE_FFN,
  vocabulary = LMKIT_ROLE_VOCABULARY,
};

using Shard = lmkit_shard;
using Ranks = lmkit_ranks;

template <class P>
concept KnowsItsPlace = requires(const P rank, Role role, std::int64_t units) {
  { rank.rank() } noexcept -> std::same_as<int>;
  { rank.size() } noexcept -> std::same_as<int>;
  { rank.shard(role, units) } noexcept -> std::same_as<Shard>;
};

template <class P>
concept Reduces = requires(P rank, std::span<float> data, Stream stream) {
  { rank.all_reduce_sum(data, stream) } noexcept -> std::same_as<Status>;
};

// all_gather(mine, all, rows, shards): `all` is (rows, sum of shards) floats; rank r gave its (rows, shards[r]) part.
template <class P>
concept Gathers = requires(P rank, std::span<const float> mine, std::span<float> all, std::int64_t rows,
                           std::span<const std::int64_t> shards, Stream stream) {
  { rank.all_gather(mine, all, rows, shards, stream) } noexcept -> std::same_as<Status>;
};

template <class P>
concept Broadcasts = requires(P rank, std::span<std::byte> data, int root, Stream stream) {
  { rank.broadcast(data, root, stream) } noexcept -> std::same_as<Status>;
};

// What the ranks of a process share. join() is called by each local rank's own thread and waits for all of them.
template <class G, class P>
concept ParallelGroup = requires(G group, const G same, int rank, Role role, std::int64_t units, std::span<std::byte> workspace) {
  { same.ranks() } noexcept -> std::same_as<Ranks>;
  { same.shard(rank, role, units) } noexcept -> std::same_as<Shard>;
  { same.workspace_bytes(units) } noexcept -> std::same_as<std::int64_t>;  // units: floats of the largest collective
  { group.join(rank, workspace) } -> std::same_as<P>;
};

template <class P>
concept ParallelStrategy = std::movable<P> && KnowsItsPlace<P> && Reduces<P> && Gathers<P> && Broadcasts<P> &&
                           ParallelGroup<typename P::Group, P>;

}  // namespace lmkit
