// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>

#include <lmkit/engine/stop_matcher.hpp>

#include <random>

using namespace lmkit;

TEST_CASE("however a text is cut, it is shown up to the first stop string") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto word = [&](int most) {
    std::string text;
    for (int n = static_cast<int>(random() % most) + 1; n-- > 0;) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::vector<std::string> stops = {word(6), word(6) + "b", word(9)};
    const std::string text = word(40);
    // The matcher sees a piece at a time: a stop string that ends first wins, and of those the one that begins first.
    std::string shown;
    StopMatcher matcher(stops);
    std::size_t fed = 0;
    while (fed < text.size() && !matcher.matched()) {
      const std::size_t size = std::min<std::size_t>(text.size() - fed, 1 + random() % 4);
      shown += matcher.push(text.substr(fed, size));
      fed += size;
    }
    std::size_t first = std::string::npos;
    for (const std::string& stop : stops) first = std::min(first, text.substr(0, fed).find(stop));
    REQUIRE(matcher.matched() == (first != std::string::npos));
    if (!matcher.matched()) shown += matcher.flush();
    REQUIRE(shown == text.substr(0, first));
  }
}

TEST_CASE("text that cannot begin a stop string is not held back") {
  StopMatcher matcher({"<end>", "STOP"});
  REQUIRE(matcher.push("hello <e") == "hello ");
  REQUIRE(matcher.push("x") == "<ex");
  REQUIRE(matcher.push("ST") == "");
  REQUIRE(matcher.push("OP more") == "");
  REQUIRE(matcher.matched());
  REQUIRE(matcher.push("more") == "");
}
