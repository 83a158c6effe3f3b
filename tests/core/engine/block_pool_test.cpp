// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>

#include <lmkit/engine/block_pool.hpp>

#include <random>

using namespace lmkit;

TEST_CASE("a block has one holder and comes back when its lease ends") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  BlockPool pool(50);
  std::vector<BlockLease> leases;
  for (int i = 0; i < 5000; ++i) {
    if (pool.free() > 0 && random() % 2 == 0) {
      BlockLease lease = pool.take();
      for (const BlockLease& other : leases) REQUIRE(other.id() != lease.id());
      leases.push_back(std::move(lease));
    } else if (!leases.empty()) {
      std::swap(leases[random() % leases.size()], leases.back());
      const std::int32_t id = leases.back().id();
      leases.pop_back();
      REQUIRE_FALSE(pool.is_held(id));
    }
    REQUIRE(pool.held() == static_cast<int>(leases.size()));
    REQUIRE(pool.free() + pool.held() + pool.cached() == pool.total());
  }
}

TEST_CASE("a lease that is assigned gives back what it held") {
  BlockPool pool(2);
  BlockLease a = pool.take();
  a = pool.take();
  REQUIRE(pool.held() == 1);
  a = BlockLease();
  REQUIRE(pool.held() == 0);
}
