// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/task_pool.hpp>
#include <lmkit/plugin/registry.hpp>

#include <catch.hpp>
#include <error_of.hpp>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace lmkit;

namespace {

AnyParallel::Source tp_threads(const std::string& settings) {
  const PluginRegistry registry({LMKIT_TEST_PLUGINS});
  return *registry.load(parse_plugin_spec("tp-threads:" + settings)).parallel();
}

AnyParallel::Group group_of(int size) { return AnyParallel::Group(tp_threads("size=" + std::to_string(size))); }

// body(rank) on a thread for each rank of the group.
void on_ranks(AnyParallel::Group& group, const std::function<void(AnyParallel&)>& body) {
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < group.ranks().size; ++rank)
    threads.emplace_back([&, rank] {
      AnyParallel self = group.join(rank, {});
      body(self);
    });
}

using Matrix = std::vector<std::vector<float>>;

Matrix normal_data(std::mt19937& random, int ranks, std::size_t count) {
  std::normal_distribution<float> normal;
  Matrix data(static_cast<std::size_t>(ranks), std::vector<float>(count));
  for (auto& row : data)
    for (float& x : row) x = normal(random);
  return data;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

const Stream no_stream{nullptr, &host_table()};

}  // namespace

TEST_CASE("tp-threads sums what the ranks hold, the same bits on every rank and in every run") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (const int ranks : {1, 2, 3, 5}) {
    for (const std::size_t count : {0u, 1u, 15u, 16u, 17u, 576u, 1025u, 20000u}) {
      const Matrix given = normal_data(random, ranks, count);
      Matrix first;
      for (int repeat = 0; repeat < 10; ++repeat) {
        Matrix data = given;
        AnyParallel::Group group = group_of(ranks);
        std::vector<Status> outcomes(static_cast<std::size_t>(ranks), Status::internal_error);
        on_ranks(group, [&](AnyParallel& self) { outcomes[self.rank()] = self.all_reduce_sum(data[self.rank()], no_stream); });
        for (const Status outcome : outcomes) REQUIRE(outcome == Status::ok);
        if (repeat == 0) first = data;
        for (const auto& row : data) REQUIRE(same_bits(row, first[0]));
      }
      for (std::size_t i = 0; i < count; ++i) {
        double sum = 0, magnitude = 0;
        for (const auto& row : given) sum += row[i], magnitude += std::abs(row[i]);
        REQUIRE(std::abs(first[0][i] - sum) <= 1e-6 * magnitude);
      }
    }
  }
}

TEST_CASE("tp-threads: thousands of mixed collectives in a row stay in step") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  for (const int ranks : {2, 3, 5}) {
    AnyParallel::Group group = group_of(ranks);
    std::vector<int> wrong(static_cast<std::size_t>(ranks));
    on_ranks(group, [&](AnyParallel& self) {
      std::mt19937 random(seed);  // the same plan on all ranks
      int& errors = wrong[static_cast<std::size_t>(self.rank())];
      for (int step = 0; step < 1500; ++step) {
        const std::size_t count = random() % 200;
        const auto value = static_cast<float>(random() % 1000);
        if (step % 3 == 0) {
          std::vector<float> data(count, value + static_cast<float>(self.rank()));
          errors += self.all_reduce_sum(data, no_stream) != Status::ok;
          const float sum = static_cast<float>(ranks) * value + static_cast<float>(ranks * (ranks - 1) / 2);
          for (const float x : data) errors += x != sum;
        } else if (step % 3 == 1) {
          const int root = static_cast<int>(random() % static_cast<unsigned>(ranks));
          std::vector<float> data(count, self.rank() == root ? value : -1.0f);
          errors += self.broadcast(std::as_writable_bytes(std::span(data)), root, no_stream) != Status::ok;
          for (const float x : data) errors += x != value;
        } else {
          std::vector<std::int64_t> shards;
          for (int r = 0; r < ranks; ++r) {
            const Shard shard = group.shard(r, Role::vocabulary, static_cast<std::int64_t>(count));
            shards.push_back(shard.end - shard.begin);
          }
          constexpr std::int64_t rows = 3;
          const Shard own = self.shard(Role::vocabulary, static_cast<std::int64_t>(count));
          std::vector<float> mine, all(rows * count, -1.0f);
          for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t i = own.begin; i < own.end; ++i) mine.push_back(static_cast<float>(row * 1000 + i));
          errors += self.all_gather(mine, all, rows, shards, no_stream) != Status::ok;
          for (std::size_t i = 0; i < all.size(); ++i) errors += all[i] != static_cast<float>(i / count * 1000 + i % count);
        }
      }
    });
    for (const int errors : wrong) CHECK(errors == 0);
  }
}

TEST_CASE("tp-threads: shards cover all units, in order, balanced to one") {
  for (int ranks = 1; ranks <= 64; ++ranks) {
    const AnyParallel::Group group = group_of(ranks);
    for (const Role role : {Role::query_heads, Role::ffn, Role::vocabulary}) {
      for (const std::int64_t units : {0, 1, 3, 9, 48, 64, 49152}) {
        std::int64_t end = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const Shard shard = group.shard(rank, role, units);
          REQUIRE(shard.begin == end);
          REQUIRE(shard.end - shard.begin == units / ranks + (rank < units % ranks ? 1 : 0));
          end = shard.end;
        }
        REQUIRE(end == units);
      }
    }
  }
}

TEST_CASE("tp-threads: a rank that leaves sends the others away instead of keeping them waiting") {
  for (const int ranks : {2, 5}) {
    AnyParallel::Group group = group_of(ranks);
    std::vector<Status> outcomes(static_cast<std::size_t>(ranks), Status::ok);
    std::vector<std::string> reasons(static_cast<std::size_t>(ranks));
    on_ranks(group, [&](AnyParallel& self) {
      if (self.rank() == 1) return;
      std::vector<float> data(100);
      outcomes[self.rank()] = self.all_reduce_sum(data, no_stream);
      reasons[self.rank()] = last_failure();
    });
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == 1) continue;
      CHECK(outcomes[rank] == Status::internal_error);
      CHECK(reasons[rank] == "another rank has failed or left");
    }
  }
}

TEST_CASE("tp-threads: ranks that disagree on a collective all learn so") {
  AnyParallel::Group group = group_of(3);
  std::vector<Status> outcomes(3, Status::ok);
  on_ranks(group, [&](AnyParallel& self) {
    std::vector<float> data(self.rank() == 2 ? 7 : 8);
    outcomes[self.rank()] = self.all_reduce_sum(data, no_stream);
  });
  for (const Status outcome : outcomes) CHECK(outcome == Status::internal_error);
}

TEST_CASE("tp-threads: a completed collective succeeds even when a rank leaves right after it") {
  for (int repeat = 0; repeat < 200; ++repeat) {
    AnyParallel::Group group = group_of(3);
    std::vector<Status> outcomes(3, Status::internal_error);
    on_ranks(group, [&](AnyParallel& self) {
      std::vector<float> data(1);
      outcomes[self.rank()] = self.all_reduce_sum(data, no_stream);
    });
    for (const Status outcome : outcomes) REQUIRE(outcome == Status::ok);
  }
}

TEST_CASE("tp-threads takes 1 to 64 ranks") {
  CHECK(group_of(64).ranks().size == 64);
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { tp_threads("size=0"); }), "a whole number from 1 to 64");
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { tp_threads("size=99"); }), "size=99 is out of range");
  AnyParallel::Group group = group_of(1);
  CHECK_SAYS(error_of(ErrorKind::plugin, [&] { group.join(1, {}); }), "tp-threads cannot join its ranks: rank 1 joins");
}
