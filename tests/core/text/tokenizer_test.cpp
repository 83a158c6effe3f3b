// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/text/tokenizer.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>
#include <map>
#include <random>

#include "small_vocabulary.hpp"

using namespace lmkit;
using namespace lmkit_test;

namespace {

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {}) {
  std::vector<std::string> out;
  for (const TokenId id : tokenizer.encode(text, options)) out.emplace_back(tokenizer.piece(id));
  return out;
}

// BPE as the book has it: again and again, merge the best pair there is, leftmost first.
std::vector<std::string> plain_bpe(const std::vector<std::pair<std::string, std::string>>& merges, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = static_cast<std::size_t>(std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1])) - merges.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == merges.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

using Pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("tokenizer: merges are applied best rank first, leftmost among equals") {
  const Tokenizer tokenizer(small_vocabulary({{"l", "l"}, {"h", "e"}, {"he", "ll"}, {"hell", "o"}, {"a", "a"}}));
  CHECK(pieces(tokenizer, "hello") == Pieces{"hello"});
  CHECK(pieces(tokenizer, "help") == Pieces{"he", "l", "p"});
  CHECK(pieces(tokenizer, "llll") == Pieces{"ll", "ll"});
  CHECK(pieces(tokenizer, "aaaaa") == Pieces{"aa", "aa", "a"});
  CHECK(pieces(tokenizer, "").empty());
}

TEST_CASE("tokenizer: any table of merges gives what BPE says, also one whose merges come out of order") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return random() % n; };
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> parts{"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 12; ++i) {
      const std::pair merge(parts[below(parts.size())], parts[below(parts.size())]);
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      parts.push_back(merge.first + merge.second);
    }
    if (round % 2) std::shuffle(merges.begin(), merges.end(), random);
    const Tokenizer tokenizer(small_vocabulary(merges));
    for (int i = 0; i < 20; ++i) {
      std::string word;
      for (std::size_t n = below(60); n > 0; --n) word += static_cast<char>('a' + below(3));
      REQUIRE(pieces(tokenizer, word) == plain_bpe(merges, word));
    }
  }
}

TEST_CASE("tokenizer: words are cut as the pre-tokeniser says") {
  // Every pair of bytes merges, so that a token shows where words end.
  std::vector<std::pair<std::string, std::string>> merges;
  for (const std::string text : {" the", " cat", "'s", " 2024", "12", " !?", "\n\n", "   "})
    for (std::size_t n = 1; n < text.size(); ++n) merges.emplace_back(text.substr(0, n), text.substr(n, 1));
  TokenizerData data = small_vocabulary(merges);
  CHECK(pieces(Tokenizer(data), " the cat's 2024 !?") == Pieces{" the", " cat", "'s", " 2024", " !?"});
  CHECK(pieces(Tokenizer(data), "    the") == Pieces{"   ", " the"});
  data.pre_tokenizer = "smollm";
  CHECK(pieces(Tokenizer(data), " the 12") == Pieces{" the", " ", "1", "2"});
}

TEST_CASE("tokenizer: control tokens in a text are read only on demand, user-defined ones always") {
  TokenizerData data = small_vocabulary({{"e", "n"}, {"en", "d"}});
  const TokenId end = add_special(data, "<end>", TokenKind::control);
  const TokenId longer = add_special(data, "<end>>", TokenKind::control);
  const TokenId think = add_special(data, "<think>", TokenKind::user_defined);
  const Tokenizer tokenizer(data);
  CHECK(pieces(tokenizer, "a<end><think>") == Pieces{"a", "<", "end", ">", "<think>"});
  CHECK(tokenizer.encode("<end><end>>a<en<end>", {.parse_special = true}) ==
        std::vector<TokenId>{end, longer, 'a', '<', *tokenizer.find("en"), end});
  CHECK(tokenizer.encode("<think>") == std::vector{think});
  CHECK(tokenizer.is_control(end));
  CHECK_FALSE(tokenizer.is_control(think));
  CHECK_FALSE(tokenizer.is_control('a'));
  CHECK(tokenizer.find("<end>>") == longer);
  CHECK_FALSE(tokenizer.find("<nothing>"));
}

TEST_CASE("tokenizer: what a stranger wrote holds no control token, not even together with what surrounds it") {
  TokenizerData data = small_vocabulary({});
  const TokenId end = add_special(data, "<end>", TokenKind::control);
  const Tokenizer tokenizer(data);
  const std::string text = "<end><end><end>";
  const auto count = [&](std::vector<TextRange> foreign) {
    const auto ids = tokenizer.encode(text, {.parse_special = true, .foreign = foreign});
    CHECK(tokenizer.decode(ids) == text);
    return std::ranges::count(ids, end);
  };
  CHECK(count({}) == 3);
  CHECK(count({{5, 10}}) == 2);
  CHECK(count({{4, 11}}) == 0);  // a byte of each neighbour
  CHECK(count({{0, 1}, {14, 15}}) == 1);
  CHECK(count({{0, 15}}) == 0);
}

TEST_CASE("tokenizer: decoding gives the text back, and invalid UTF-8 reads as U+FFFD") {
  const Tokenizer tokenizer(small_vocabulary({{"a", "b"}, {" ", " "}, {"\xC3", "\xA9"}}));
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (auto n = random() % 40; n > 0; --n)
      text += random() % 3 ? static_cast<char>(random() % 256) : "ab é\n1'"[random() % 8];
    REQUIRE(tokenizer.decode(tokenizer.encode(text)) == replace_invalid_utf8(text));
  }
}

TEST_CASE("tokenizer: a byte without a token vanishes, or becomes the token that stands for it") {
  TokenizerData data = small_vocabulary({});
  data.tokens['x'] = "unused";
  CHECK(pieces(Tokenizer(data), "axb") == Pieces{"a", "b"});
  data.missing_byte = '?';
  CHECK(pieces(Tokenizer(data), "axb") == Pieces{"a", "?", "b"});
}

TEST_CASE("tokenizer: the begin-of-sequence token comes first where the model wants it") {
  TokenizerData data = small_vocabulary({});
  data.bos = add_special(data, "<s>", TokenKind::control);
  CHECK(Tokenizer(data).encode("a", {.add_special = true}) == std::vector<TokenId>{'a'});
  data.add_bos = true;
  CHECK(Tokenizer(data).encode("a", {.add_special = true}) == std::vector<TokenId>{*data.bos, 'a'});
  CHECK(Tokenizer(data).encode("a") == std::vector<TokenId>{'a'});
}

TEST_CASE("tokenizer: an answer ends at eos, at what the file names and at the usual tokens") {
  TokenizerData data = small_vocabulary({});
  data.eos = add_special(data, "</s>", TokenKind::control);
  const TokenId named = add_special(data, "<stop>", TokenKind::control), usual = add_special(data, "<|im_end|>", TokenKind::control);
  data.end_of_turn = {named};
  const Tokenizer tokenizer(data);
  CHECK(tokenizer.end_of_turn() == std::vector{*data.eos, named, usual});
  CHECK(tokenizer.is_end_of_turn(usual));
  CHECK_FALSE(tokenizer.is_end_of_turn('a'));
}

TEST_CASE("tokenizer: a word of a megabyte, and a megabyte of spaces, are encoded") {
  const Tokenizer tokenizer(small_vocabulary({{"a", "b"}, {"ab", "ab"}, {"abab", "abab"}, {" ", " "}, {"  ", "  "}}));
  std::string word;
  while (word.size() < 1'000'000) word += "ab";
  for (const std::string& text : {word, std::string(1'000'000, ' '), std::string(1'000'000, '\n'), std::string(1'000'000, '!')}) {
    const auto ids = tokenizer.encode(text);
    CHECK(tokenizer.decode(ids) == text);
  }
  CHECK(tokenizer.encode(word).size() == 125'000);
}

TEST_CASE("tokenizer: what does not fit together is refused with what was found and expected") {
  const auto refused = [](const TokenizerData& data, const std::string& part) {
    try {
      const Tokenizer tokenizer(data);
      FAIL("accepted; expected an error with " << part);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::model);
      CHECK_THAT(error.what(), Catch::Contains(part));
    }
  };
  TokenizerData data = small_vocabulary({});
  data.model = "unigram";
  refused(data, "bpe");
  data = small_vocabulary({});
  data.pre_tokenizer = "nobody's";
  refused(data, "smollm");
  data = small_vocabulary({});
  data.merges = {"a b"};
  refused(data, "merge 0");
  for (const std::string merge : {"", " ", "ab", "a ", "\xFF\xFF"}) {
    data.merges = {merge};
    refused(data, "merge 0");
  }
  data = small_vocabulary({});
  data.kinds.pop_back();
  refused(data, "token types");
  data = small_vocabulary({});
  data.bos = 5000;
  refused(data, "begin-of-sequence");
  data.bos = -1;
  refused(data, "begin-of-sequence");
  data = small_vocabulary({});
  data.split_patterns = {"(unclosed"};
  refused(data, "does not compile");
  data.split_patterns = {"[a[b]]"};
  refused(data, "class inside a class");
  data = TokenizerData();
  data.model = "bpe";
  refused(data, "no tokens");
}
