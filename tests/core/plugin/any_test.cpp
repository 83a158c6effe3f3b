// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/task_pool.hpp>
#include <lmkit/plugin/any_kv_backend.hpp>
#include <lmkit/plugin/any_parallel.hpp>

#include <catch.hpp>
#include <error_of.hpp>

#include <cstring>
#include <vector>

using namespace lmkit;

namespace {

// Records what reaches it.
struct RecordingKv {
  explicit RecordingKv(const KvShape& shape) : bytes(shape.head_dim) {
    if (shape.head_dim == 13) throw Error(ErrorKind::plugin, "head_dim is 13", "an even one");
  }
  std::int64_t block_bytes() const noexcept { return bytes; }
  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept { return limits.max_tokens * bytes; }
  Status append(const KvAppend& args, Stream stream) noexcept { return see(args.tokens, stream); }
  Status attend(const KvAttend& args, Stream stream) noexcept { return see(args.tokens, stream); }
  Status copy_blocks(const KvCopy& args, Stream stream) noexcept { return see(args.count, stream); }

  Status see(int count, Stream stream) noexcept {
    if (count >= 0) return stream.workers() == 2 ? Status::ok : Status::internal_error;
    stream.host->fail("a negative count");
    return Status::invalid_argument;
  }

  std::int64_t bytes;
};

KvShape shape(int head_dim) {
  KvShape shape{};
  shape.struct_size = sizeof shape;
  shape.head_dim = head_dim;
  return shape;
}

}  // namespace

TEST_CASE("a KV backend behind its table gets what it is given, and its status and reason come back") {
  AnyKvBackend kv(AnyKvBackend::built_in<RecordingKv>("recording"), shape(128));
  CHECK(kv.block_bytes() == 128);
  KvLimits limits{};
  limits.max_tokens = 3;
  CHECK(kv.workspace_bytes(limits) == 384);

  TaskPool pool(2);
  KvAppend append{};
  KvAttend attend{};
  KvCopy copy{};
  CHECK(kv.append(append, pool.stream()) == Status::ok);
  CHECK(kv.attend(attend, pool.stream()) == Status::ok);
  CHECK(kv.copy_blocks(copy, pool.stream()) == Status::ok);
  copy.count = -1;
  CHECK(kv.copy_blocks(copy, pool.stream()) == Status::invalid_argument);
  CHECK(last_failure() == "a negative count");
}

TEST_CASE("a KV backend that does not fit says why") {
  const auto source = AnyKvBackend::built_in<RecordingKv>("recording");
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { AnyKvBackend(source, shape(13)); }),
             "recording cannot serve this model: head_dim is 13; expected an even one");
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { AnyKvBackend(source, shape(100)); }), "takes 100 bytes; expected a positive multiple of 64");
}

TEST_CASE("one device behind its table is still one device") {
  AnyParallel::Group group;
  CHECK(group.ranks().size == 1);
  CHECK(group.workspace_bytes(1000) == 0);
  AnyParallel rank = group.join(0, {});
  CHECK(rank.rank() == 0);
  CHECK(rank.size() == 1);
  CHECK(rank.shard(Role::ffn, 48).end == 48);

  std::vector<float> data{1, 2, 3}, all(3);
  const Stream stream{nullptr, &host_table()};
  CHECK(rank.all_reduce_sum(data, stream) == Status::ok);
  CHECK(data == std::vector<float>{1, 2, 3});
  const std::vector<std::int64_t> shards{3};
  CHECK(rank.all_gather(data, all, 1, shards, stream) == Status::ok);
  CHECK(all == data);
  CHECK(rank.broadcast(std::as_writable_bytes(std::span(data)), 0, stream) == Status::ok);

  AnyParallel moved = std::move(rank);
  CHECK(moved.size() == 1);
}
