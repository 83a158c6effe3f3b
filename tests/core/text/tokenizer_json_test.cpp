// SPDX-License-Identifier: Apache-2.0
//
// Small tokenizers of the kinds found in the wild against Hugging Face's `tokenizers` (tests/oracle/text.py).
#include <catch.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/text/detokenizer.hpp>
#include <lmkit/text/tokenizer_json.hpp>

#include <filesystem>
#include <unistd.h>
#include <text_strings.hpp>

using namespace lmkit;
using namespace lmkit_test;
namespace json = boost::json;

namespace {

const json::object& fixture() {
  static const json::value value = read_json(LMKIT_TEST_DATA "/tokenizers.json");
  return value.as_object();
}

std::string first_tokenizer() { return json::serialize(fixture().at("tokenizers").at(0).at("json")); }

std::vector<std::string> all_texts() {
  const Strings strings(fixture());
  std::vector<std::string> texts;
  SplitMix64 random(fixture().at("seed").to_number<std::uint64_t>());
  for (auto n = fixture().at("count").as_int64(); n > 0; --n) texts.push_back(strings.next(random));
  for (const auto& text : fixture().at("readable").as_array()) texts.emplace_back(text.as_string());
  return texts;
}

// The first tokenizer's file with one member changed, by its path.
std::string changed(std::string_view pointer, const json::value& value) {
  json::value document = fixture().at("tokenizers").at(0).at("json");
  const std::size_t slash = pointer.rfind('/');
  document.at_pointer(pointer.substr(0, slash)).as_object()[pointer.substr(slash + 1)] = value;
  return json::serialize(document);
}

}  // namespace

TEST_CASE("tokenizer.json: token ids and decoded text equal those of tokenizers") {
  const std::vector<std::string> texts = all_texts();
  for (const json::value& entry : fixture().at("tokenizers").as_array()) {
    const std::string_view name = entry.at("name").as_string(), hashes = entry.at("hashes").as_string(), decoded = entry.at("decoded").as_string();
    const TokenizerData data = parse_tokenizer(json::serialize(entry.at("json")));
    const Tokenizer tokenizer(data);
    int wrong = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto ids = tokenizer.encode(texts[i], {.parse_special = true});
      Detokenizer detokenizer(tokenizer, true);
      std::string text;
      for (const TokenId id : ids) text += detokenizer.push(id);
      text += detokenizer.finish();
      const bool same = hashes.substr(8 * i, 8) == short_hash(fnv(ids)) &&
                        decoded.substr(8 * i, 8) == short_hash(fnv({reinterpret_cast<const unsigned char*>(text.data()), text.size()}));
      if (!same && ++wrong == 1) UNSCOPED_INFO(name << " differs at string " << i << ": " << texts[i]);
    }
    CHECK(hashes.size() == 8 * texts.size());
    CHECK(wrong == 0);
    CHECK(data.add_bos == !entry.at("bos").is_null());
    if (data.add_bos) CHECK(data.bos == entry.at("bos").as_int64());
  }
}

TEST_CASE("a pre-tokeniser that a GGUF file names gives the token ids of the tokenizer.json that spells it out") {
  const std::vector<std::string> texts = all_texts();
  int named = 0;
  for (const json::value& entry : fixture().at("tokenizers").as_array()) {
    if (entry.at("gguf").is_null()) continue;
    TokenizerData data = parse_tokenizer(json::serialize(entry.at("json")));
    data.pre_tokenizer = entry.at("gguf").as_string();
    data.split_patterns.clear();
    data.ignore_merges = data.nfc = false;  // the name implies them
    const Tokenizer tokenizer(data);
    const std::string_view hashes = entry.at("hashes").as_string();
    int wrong = 0;
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (short_hash(fnv(tokenizer.encode(texts[i], {.parse_special = true}))) != hashes.substr(8 * i, 8) && ++wrong == 1)
        UNSCOPED_INFO(data.pre_tokenizer << " differs at string " << i << ": " << texts[i]);
    CHECK(wrong == 0);
    ++named;
  }
  CHECK(named == 5);
}

TEST_CASE("tokenizer.json: the files beside it say which tokens end an answer, and how to chat") {
  const std::string config = R"({"eos_token": {"content": "<|endoftext|>", "lstrip": false}, "bos_token": "<|endoftext|>", "add_bos_token": true,
      "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})";
  const TokenizerData data = parse_tokenizer(first_tokenizer(), config, R"({"eos_token_id": [65, 66]})");
  CHECK(data.tokens.at(static_cast<std::size_t>(data.eos.value())) == "<|endoftext|>");
  CHECK(data.bos == data.eos);
  CHECK(data.add_bos);
  CHECK(data.chat_template == "D");
  CHECK(data.end_of_turn == std::vector<TokenId>{65, 66, *data.eos});
  CHECK(parse_tokenizer(first_tokenizer(), R"({"chat_template": "X", "bos_token": null})").chat_template == "X");
}

TEST_CASE("tokenizer.json: a directory is read, and one without it is an error that names the file") {
  const auto directory = std::filesystem::temp_directory_path() / ("lmkit-tokenizer-" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  CHECK_THROWS_WITH(read_tokenizer(directory), Catch::Contains("tokenizer.json"));
  std::ofstream(directory / "tokenizer.json") << first_tokenizer();
  std::ofstream(directory / "chat_template.jinja") << "{{ 1 }}";
  const TokenizerData data = read_tokenizer(directory);
  CHECK(data.chat_template == "{{ 1 }}");
  CHECK(Tokenizer(data).encode("hello") == Tokenizer(parse_tokenizer(first_tokenizer())).encode("hello"));
  std::filesystem::remove_all(directory);
}

TEST_CASE("tokenizer.json: what would change ids and is not known is refused") {
  const auto refused = [](const std::string& text, const std::string& part, const std::string& config = {}) {
    INFO(part);
    try {
      Tokenizer(parse_tokenizer(text, config));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::model);
      CHECK_THAT(error.what(), Catch::Contains(part));
    }
  };
  refused("", "not JSON");
  refused("[]", "not a JSON object");
  refused("{}", "no model");
  refused(std::string(100000, '['), "not JSON");
  refused(changed("/model/type", "Unigram"), "Unigram");
  refused(changed("/model/byte_fallback", true), "byte_fallback");
  refused(changed("/model/dropout", 0.5), "dropout");
  refused(changed("/model/end_of_word_suffix", "</w>"), "suffix");
  refused(changed("/model/merges", {"a b c d"}), "merge 0");
  refused(changed("/model/merges", json::array{json::array{"a"}}), "two strings");
  refused(changed("/model/merges", json::array{1}), "not a JSON array");
  refused(changed("/model/vocab/a", -1), "token id");
  refused(changed("/model/vocab/a", 2000000000), "among");
  refused(changed("/model/vocab/a", 70), "two tokens");
  refused(changed("/model/vocab/a", "b"), "token id");
  refused(changed("/normalizer", json::object{{"type", "NFKC"}}), "NFKC");
  refused(changed("/pre_tokenizer/add_prefix_space", true), "space in front");
  refused(changed("/pre_tokenizer/type", "Metaspace"), "Metaspace");
  refused(changed("/pre_tokenizer", nullptr), "no pre_tokenizer");
  refused(changed("/post_processor", json::object{{"type", "BertProcessing"}}), "BertProcessing");
  refused(changed("/added_tokens/0/single_word", true), "single_word");
  refused(changed("/added_tokens/0/content", ""), "empty");
  refused(first_tokenizer(), "eos_token", R"({"eos_token": "<nobody>"})");
  refused(first_tokenizer(), "not JSON", "{");
}
