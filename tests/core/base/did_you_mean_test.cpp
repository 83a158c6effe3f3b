// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/did_you_mean.hpp>

#include <catch.hpp>

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

using namespace lmkit;

namespace {

// The definition, without a table: optimal string alignment by plain recursion.
std::size_t distance_by_definition(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.size() + b.size();
  const std::string_view a1 = a.substr(1), b1 = b.substr(1);
  std::size_t best = distance_by_definition(a1, b1) + (a[0] != b[0]);
  best = std::min({best, distance_by_definition(a1, b) + 1, distance_by_definition(a, b1) + 1});
  if (a.size() > 1 && b.size() > 1 && a[0] == b[1] && a[1] == b[0])
    best = std::min(best, distance_by_definition(a.substr(2), b.substr(2)) + 1);
  return best;
}

}  // namespace

TEST_CASE("edit distance follows its definition") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::string words[2];
    for (std::string& word : words)
      for (unsigned length = random() % 7; word.size() < length;) word += static_cast<char>('a' + random() % 3);
    CHECK(edit_distance(words[0], words[1]) == distance_by_definition(words[0], words[1]));
  }
}

TEST_CASE("the nearest name is offered, and nothing when none is near") {
  const std::vector<std::string> names{"kv-int4", "kv-int8", "mem-ratio", "tp-threads", "run", "chat"};
  CHECK(did_you_mean("kv-itn4", names) == "kv-int4");
  CHECK(did_you_mean("KV-INT8", names) == "kv-int8");
  CHECK(did_you_mean("int4", names) == "kv-int4");
  CHECK(did_you_mean("rnu", names) == "run");
  CHECK(did_you_mean("x", names).empty());
  CHECK(did_you_mean("", names).empty());
  CHECK(did_you_mean("banana", names).empty());
  CHECK(did_you_mean(std::string(1000, 'k'), names).empty());
  CHECK(did_you_mean_hint("chta", names) == "did you mean 'chat'?");
  CHECK(did_you_mean_hint("banana", names).empty());
}
