// SPDX-License-Identifier: Apache-2.0
#include "tp_threads.hpp"

#include <lmkit/base/error.hpp>

#include <algorithm>
#include <cstring>
#include <string>

namespace lmkit::tp_threads {
namespace {

Status fail(Stream stream, Status status, const char* reason) noexcept {
  if (stream.host) stream.host->fail(reason);
  return status;
}

// Slice [begin, end) of all ranks' data becomes their sum, a cache-sized chunk at a time.
void sum_slice(std::span<const Offer> offers, std::int64_t begin, std::int64_t end) noexcept {
  constexpr std::int64_t chunk = 1024;
  float sum[chunk];
  for (; begin < end; begin += chunk) {
    const std::int64_t count = std::min(chunk, end - begin);
    std::memcpy(sum, static_cast<const float*>(offers[0].writable) + begin, static_cast<std::size_t>(count) * sizeof(float));
    for (const Offer& offer : offers.subspan(1)) {
      const float* data = static_cast<const float*>(offer.writable) + begin;
      for (std::int64_t i = 0; i < count; ++i) sum[i] += data[i];
    }
    for (const Offer& offer : offers)
      std::memcpy(static_cast<float*>(offer.writable) + begin, sum, static_cast<std::size_t>(count) * sizeof(float));
  }
}

}  // namespace

TpThreads::Group::Group(int size) {
  if (size < 1 || size > most_ranks) throw Error(ErrorKind::plugin, "size=" + std::to_string(size), "1 to " + std::to_string(most_ranks));
  shared_ = std::make_unique<Shared>(size);
}

TpThreads TpThreads::Group::join(int rank, std::span<std::byte>) {
  const bool exists = rank >= 0 && rank < shared_->size;
  if (!exists || shared_->joined[static_cast<std::size_t>(rank)].exchange(true)) {
    shared_->barrier.break_up();
    throw Error(ErrorKind::plugin, "rank " + std::to_string(rank) + (exists ? " joins twice" : " joins"),
                "each of the ranks 0 to " + std::to_string(shared_->size - 1) + " once");
  }
  if (!shared_->barrier.meet()) throw Error(ErrorKind::plugin, "another rank failed before all had joined");
  return {*shared_, rank};
}

template <class Work>
Status TpThreads::together(const Offer& offer, Stream stream, Work&& work) noexcept {
  constexpr const char* broken = "another rank has failed or left";
  shared_->offers[static_cast<std::size_t>(rank_)] = offer;
  if (!shared_->barrier.meet()) return fail(stream, Status::internal_error, broken);
  const bool agree = std::all_of(shared_->offers.begin(), shared_->offers.end(), [&](const Offer& other) {
    return other.kind == offer.kind && other.count == offer.count && other.detail == offer.detail;
  });
  if (!agree) return fail(stream, Status::internal_error, "the ranks call different collectives, or with different sizes");
  work(std::span<const Offer>(shared_->offers));
  return shared_->barrier.meet() ? Status::ok : fail(stream, Status::internal_error, broken);
}

Status TpThreads::all_reduce_sum(std::span<float> data, Stream stream) noexcept {
  if (size() == 1) return Status::ok;
  const auto count = static_cast<std::int64_t>(data.size());
  return together({.kind = Offer::Kind::all_reduce, .count = count, .writable = data.data()}, stream, [&](std::span<const Offer> offers) {
    constexpr std::int64_t line = 16;  // slices end at cache lines, so that no two ranks write to one
    const Shard lines = balanced_shard(rank_, size(), (count + line - 1) / line);
    sum_slice(offers, lines.begin * line, std::min(lines.end * line, count));
  });
}

Status TpThreads::all_gather(std::span<const float> mine, std::span<float> all, std::int64_t rows, std::span<const std::int64_t> shards,
                             Stream stream) noexcept {
  const auto count = static_cast<std::int64_t>(all.size());
  const Offer offer{.kind = Offer::Kind::all_gather, .count = count, .detail = rows, .readable = mine.data()};
  return together(offer, stream, [&](std::span<const Offer> offers) {
    const std::int64_t row_floats = rows > 0 ? count / rows : 0;
    std::int64_t column = 0;
    for (std::size_t r = 0; r < offers.size(); column += shards[r++]) {
      const auto width = static_cast<std::size_t>(shards[r]);
      if (width == 0) continue;
      const float* part = static_cast<const float*>(offers[r].readable);
      for (std::int64_t row = 0; row < rows; ++row)
        std::memcpy(all.data() + row * row_floats + column, part + row * shards[r], width * sizeof(float));
    }
  });
}

Status TpThreads::broadcast(std::span<std::byte> data, int root, Stream stream) noexcept {
  if (root < 0 || root >= size()) return fail(stream, Status::invalid_argument, "broadcast from a rank that does not exist");
  const Offer offer{.kind = Offer::Kind::broadcast, .count = static_cast<std::int64_t>(data.size()), .detail = root, .readable = data.data()};
  return together(offer, stream, [&](std::span<const Offer> offers) {
    if (rank_ != root && !data.empty()) std::memcpy(data.data(), offers[static_cast<std::size_t>(root)].readable, data.size());
  });
}

}  // namespace lmkit::tp_threads
