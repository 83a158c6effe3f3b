// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/task_pool.hpp>
#include <lmkit/plugin/any_allocator.hpp>
#include <lmkit/plugin/any_kv_backend.hpp>
#include <lmkit/plugin/any_parallel.hpp>

#include <fmt/core.h>

namespace lmkit {

void throw_refusal(const std::string& plugin, lmkit_status status, const char* what) {
  const std::string reason = last_failure();
  throw Error(status == LMKIT_OUT_OF_MEMORY ? ErrorKind::memory : ErrorKind::plugin,
              fmt::format("{} {}: {}", plugin, what, reason.empty() ? fmt::format("status {} without a reason", status) : reason));
}

AnyAllocator::AnyAllocator(const Source& source) : table_(source.table), name_(source.name), self_(nullptr, source.table.destroy) {
  const auto settings = source.abi_settings();
  void* self = nullptr;
  const lmkit_status status = table_.create(&host_table(), settings.data(), static_cast<std::int32_t>(settings.size()), &self);
  if (status != LMKIT_OK) throw_refusal(name_, status, "cannot start");
  self_.reset(self);
}

std::int64_t AnyAllocator::kv_bytes(const MemoryReport& report) const {
  std::int64_t bytes = 0;
  const lmkit_status status = table_.kv_bytes(self_.get(), &report, &bytes);
  if (status != LMKIT_OK) throw_refusal(name_, status, "cannot size the KV pool");
  const std::int64_t left = report.total > report.used ? report.total - report.used : 0;
  if (bytes < 0 || bytes > left)
    throw Error(ErrorKind::plugin, fmt::format("{} wants a KV pool of {} bytes", name_, bytes), fmt::format("at most the {} bytes left", left));
  return bytes;
}

AnyKvBackend::AnyKvBackend(const Source& source, const KvShape& shape) : table_(source.table), self_(nullptr, source.table.destroy) {
  const auto settings = source.abi_settings();
  void* self = nullptr;
  const lmkit_status status = table_.create(&host_table(), &shape, settings.data(), static_cast<std::int32_t>(settings.size()), &self);
  if (status != LMKIT_OK) throw_refusal(source.name, status, "cannot serve this model");
  self_.reset(self);
  if (const std::int64_t bytes = block_bytes(); bytes <= 0 || bytes % 64 != 0)
    throw Error(ErrorKind::plugin, fmt::format("{} says that a layer's part of a block takes {} bytes", source.name, bytes),
                "a positive multiple of 64");
}

AnyParallel::Group::Group(const Source& source) : table_(source.table), name_(source.name), self_(nullptr, source.table.destroy) {
  const auto settings = source.abi_settings();
  void* self = nullptr;
  const lmkit_status status = table_.create(&host_table(), settings.data(), static_cast<std::int32_t>(settings.size()), &self);
  if (status != LMKIT_OK) throw_refusal(name_, status, "cannot start");
  self_.reset(self);
  table_.ranks(self, &ranks_);
  if (ranks_.local_begin < 0 || ranks_.local_begin >= ranks_.local_end || ranks_.local_end > ranks_.size)
    throw Error(ErrorKind::plugin,
                fmt::format("{} runs ranks {} to {} of {} in this process", name_, ranks_.local_begin, ranks_.local_end, ranks_.size),
                "at least one, all below the group's size");
}

AnyParallel AnyParallel::Group::join(int rank, std::span<std::byte> workspace) {
  void* self = nullptr;
  const lmkit_status status = table_.join(self_.get(), rank, workspace.data(), static_cast<std::int64_t>(workspace.size()), &self);
  if (status != LMKIT_OK) throw_refusal(name_, status, "cannot join its ranks");
  return {*this, rank, self};
}

AnyParallel::AnyParallel(const Group& group, int rank, void* self)
    : table_(group.table_),
      group_(group.self_.get()),
      rank_(rank),
      size_(group.ranks_.size),
      shard_bytes_(static_cast<std::size_t>(group.ranks_.size)),
      self_(self, group.table_.leave) {}

}  // namespace lmkit
