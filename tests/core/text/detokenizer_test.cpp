// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>
#include <lmkit/text/detokenizer.hpp>
#include <lmkit/text/utf8.hpp>

#include <random>

#include "small_vocabulary.hpp"

using namespace lmkit;
using namespace lmkit_test;

TEST_CASE("detokenizer: a character cut between tokens comes out whole") {
  const Tokenizer tokenizer(small_vocabulary({}));
  Detokenizer detokenizer(tokenizer);
  CHECK(detokenizer.push(0xF0) == "");
  CHECK(detokenizer.push(0x9F) == "");
  CHECK(detokenizer.push(0x98) == "");
  CHECK(detokenizer.push(0x80) == "😀");
  CHECK(detokenizer.push('a') == "a");
  CHECK(detokenizer.push(0xF0) == "");
  CHECK(detokenizer.push('b') == "\uFFFDb");
  CHECK(detokenizer.push(0xE2) == "");
  CHECK(detokenizer.push(0x82) == "");
  CHECK(detokenizer.finish() == "\uFFFD");
  CHECK(detokenizer.finish() == "");
}

TEST_CASE("detokenizer: the pieces are valid and together are the whole, whatever the tokens") {
  TokenizerData data = small_vocabulary({{"\xF0", "\x9F"}, {"\xE2", "\x82"}, {"\x80", "\xE2"}, {"a", "\xC3"}});
  const Tokenizer tokenizer(data);
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    Detokenizer detokenizer(tokenizer);
    std::vector<TokenId> tokens;
    std::string streamed;
    for (auto n = random() % 30; n > 0; --n) {
      tokens.push_back(static_cast<TokenId>(random() % static_cast<unsigned>(tokenizer.size())));
      const std::string piece = detokenizer.push(tokens.back());
      REQUIRE(is_valid_utf8(piece));
      streamed += piece;
    }
    streamed += detokenizer.finish();
    REQUIRE(streamed == replace_invalid_utf8(tokenizer.decode(tokens)));
  }
}

TEST_CASE("detokenizer: control tokens are left out unless shown, and do not part a character") {
  TokenizerData data = small_vocabulary({});
  const TokenId end = add_special(data, "<end>", TokenKind::control), think = add_special(data, "<think>", TokenKind::user_defined);
  const Tokenizer tokenizer(data);
  Detokenizer hides(tokenizer), shows(tokenizer, true);
  CHECK(hides.push(end) == "");
  CHECK(hides.push(think) == "<think>");
  CHECK(shows.push(end) == "<end>");
  CHECK(hides.push(0xC3) == "");
  CHECK(hides.push(end) == "");
  CHECK(hides.push(0xA9) == "é");
  CHECK(hides.push(-1) == "");  // no such token
  CHECK(hides.push(1 << 20) == "");
}
