// SPDX-License-Identifier: Apache-2.0
#include "engine_fixture.hpp"

#include <set>
#include <thread>

using namespace lmkit;
using namespace lmkit::test;
using namespace std::chrono_literals;

TEST_CASE("the service answers like the engine does") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto model = std::make_shared<TinyModel>(seed);
  const auto by_hand = tiny_pipeline(model), by_thread = tiny_pipeline(model);
  Service& service = by_thread->start();
  for (int i = 0; i < 10; ++i) {
    const Request request = greedy(random_prompt(random, 1 + static_cast<int>(random() % 100)), 20);
    REQUIRE(by_hand->engine().submit(request) == service.submit(request));
  }
  Answers expected = run_to_end(by_hand->engine()), found;
  while (found.size() < 10 || std::any_of(found.begin(), found.end(), [](const auto& f) { return f.second.finish == Finish::none; })) {
    collect(found, service.wait(10s));
  }
  for (auto& [id, answer] : expected) {
    REQUIRE(found[id].tokens == answer.tokens);
    REQUIRE(found[id].usage.generated_tokens == 20);
  }
}

TEST_CASE("a thousand aborted requests leak nothing") {
  const auto seed = fresh_seed();
  CAPTURE(seed);
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(seed), {.blocks = 24, .max_sequences = 8});
  Service& service = pipeline->start();
  constexpr int threads = 4, each = 250;
  std::set<RequestId> ended;
  int cancelled = 0;
  {
    std::vector<std::jthread> clients;
    for (int t = 0; t < threads; ++t) {
      clients.emplace_back([&service, seed, t] {
        std::mt19937_64 random(seed + t);
        std::vector<RequestId> mine;
        for (int i = 0; i < each; ++i) {
          mine.push_back(service.submit(greedy(random_prompt(random, 1 + static_cast<int>(random() % 200)), 300)));
          if (random() % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
          service.cancel(mine[random() % mine.size()]);
        }
        for (const RequestId id : mine) service.cancel(id);
      });
    }
    while (ended.size() < threads * each) {
      const std::vector<Event> events = service.wait(10s);
      REQUIRE(!events.empty());
      for (const Event& event : events) {
        if (event.finish == Finish::none) continue;
        REQUIRE(ended.insert(event.id).second);
        cancelled += event.finish == Finish::cancelled;
      }
    }
  }
  REQUIRE(cancelled > threads * each / 2);
  Stats stats = service.stats();
  REQUIRE(stats.blocks_free == stats.blocks_total);
  REQUIRE(stats.running + stats.waiting + stats.blocks_held == 0);
  REQUIRE(service.wait(0ms).empty());
}

TEST_CASE("a wait without events ends after its timeout; unknown ids are ignored") {
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1));
  Service& service = pipeline->start();
  service.cancel(77);
  REQUIRE(service.wait(1ms).empty());
}

TEST_CASE("a service may end while requests run") {
  for (int i = 0; i < 20; ++i) {
    const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1));
    pipeline->start().submit(greedy({1, 2, 3}, 400));
    pipeline->start().submit(greedy({4}, 400));
  }
}
