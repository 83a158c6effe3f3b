// SPDX-License-Identifier: Apache-2.0
//
// The default model's tokenizer against Hugging Face's `tokenizers`, as tests/oracle/text.py stored it.
#include "cli.hpp"

#include <lmkit/text/detokenizer.hpp>

#include <catch.hpp>
#include <text_strings.hpp>

using namespace lmkit;
using namespace lmkit::test;
using namespace lmkit_test;

namespace {

const boost::json::object& fixture() {
  static const boost::json::value value = read_json(LMKIT_TEST_ORACLE "/token_ids.json");
  return value.as_object();
}

// Null, with a warning, where the model is missing.
const Tokenizer* default_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    const auto path = default_model();
    return path ? std::make_unique<Tokenizer>(open_model(*path)->tokenizer()) : nullptr;
  }();
  if (!tokenizer) WARN("skipped: the default model is not in the cache; tools/quickstart fetches it");
  return tokenizer.get();
}

// The i-th of hashes that lie side by side, 8 digits each.
std::string_view hash_at(std::string_view hashes, std::size_t i) { return hashes.substr(8 * i, 8); }

}  // namespace

TEST_CASE("token ids equal those of tokenizers on thousands of varied strings") {
  const Tokenizer* tokenizer = default_tokenizer();
  if (!tokenizer) return;
  const Strings strings(fixture());
  const std::string_view hashes = fixture().at("hashes").as_string();
  const auto count = fixture().at("count").to_number<std::size_t>();
  REQUIRE(hashes.size() == 8 * count);
  SplitMix64 random(fixture().at("seed").to_number<std::uint64_t>());
  for (std::size_t i = 0; i < count; ++i) {
    const std::string text = strings.next(random);
    INFO("string " << i << ": " << text);
    REQUIRE(hash_at(hashes, i) == short_hash(fnv(tokenizer->encode(text, {.parse_special = true}))));
  }
}

TEST_CASE("token ids equal those of tokenizers on texts that can be read here") {
  const Tokenizer* tokenizer = default_tokenizer();
  if (!tokenizer) return;
  for (const boost::json::value& entry : fixture().at("readable").as_array()) {
    const std::string text(entry.at("text").as_string());
    INFO(text);
    std::vector<TokenId> expected;
    for (const boost::json::value& id : entry.at("ids").as_array()) expected.push_back(static_cast<TokenId>(id.as_int64()));
    CHECK(tokenizer->encode(text, {.parse_special = true}) == expected);
  }
}

TEST_CASE("token ids equal those of tokenizers around every code point") {
  const Tokenizer* tokenizer = default_tokenizer();
  if (!tokenizer) return;
  const boost::json::object& blocks = fixture().at("code_points").as_object();
  const std::string_view hashes = blocks.at("hashes").as_string();
  const auto per_hash = blocks.at("per_hash").to_number<std::uint64_t>();
  REQUIRE(hashes.size() / 8 * per_hash == 0x110000);
  for (std::size_t block = 0; block < hashes.size() / 8; ++block) {
    std::uint64_t value = fnv_start;
    for (std::uint64_t i = block * per_hash; i < (block + 1) * per_hash; ++i) {
      std::string c;
      append_utf8(c, scalar(i));
      value = fnv(tokenizer->encode("!" + c + "'s" + c + "1" + c + " " + c + "'s\n" + c, {.parse_special = true}), value);
    }
    INFO("code points from " << block * per_hash);
    CHECK(hash_at(hashes, block) == short_hash(value));
  }
}

TEST_CASE("the default model's tokens stream back to the text they came from") {
  const Tokenizer* tokenizer = default_tokenizer();
  if (!tokenizer) return;
  const std::string text = "Naïve 日本語 👩‍👩‍👧‍👦 — don't\n\tpanic: 42!";
  Detokenizer detokenizer(*tokenizer);
  std::string streamed;
  for (const TokenId id : tokenizer->encode(text)) streamed += detokenizer.push(id);
  CHECK(streamed + detokenizer.finish() == text);
  CHECK(tokenizer->is_end_of_turn(*tokenizer->find("<|im_end|>")));
  CHECK(tokenizer->is_control(*tokenizer->find("<|im_end|>")));
}
