// SPDX-License-Identifier: Apache-2.0
#include <lmkit/text/tokenizer_json.hpp>

#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>

#include "split_pattern.hpp"

namespace lmkit {
namespace {

namespace json = boost::json;

constexpr std::uintmax_t max_file_bytes = std::uintmax_t{512} << 20;
constexpr std::size_t max_unused_ids = 65536;  // holes in the numbering

[[noreturn]] void fail(std::string found, std::string expected = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected));
}

// Typed access, each with the answer for a member that is absent or null.
const json::value* member(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value && !value->is_null() ? value : nullptr;
}

bool flag(const json::object& object, std::string_view name, bool otherwise) {
  const json::value* value = member(object, name);
  if (!value) return otherwise;
  if (!value->is_bool()) fail(fmt::format("\"{}\" is not true or false", name));
  return value->get_bool();
}

std::string_view text(const json::object& object, std::string_view name) {
  const json::value* value = member(object, name);
  if (!value) return {};
  if (!value->is_string()) fail(fmt::format("\"{}\" is not a string", name));
  return value->get_string();
}

const json::object& object_in(const json::value& value, std::string_view what) {
  if (!value.is_object()) fail(fmt::format("{} is not a JSON object", what));
  return value.get_object();
}

const json::array& array_in(const json::value& value, std::string_view what) {
  if (!value.is_array()) fail(fmt::format("{} is not a JSON array", what));
  return value.get_array();
}

json::value parse(std::string_view source, std::string_view what) {
  boost::system::error_code error;
  json::value value = json::parse(source, error, json::make_shared_resource<json::monotonic_resource>());
  if (error) fail(fmt::format("{} is not JSON: {}", what, error.message()));
  return value;
}

TokenId token_id(const json::value& value) {
  const auto id = value.is_int64() ? value.get_int64() : -1;
  if (id < 0 || id > std::numeric_limits<TokenId>::max()) fail("a token id is not a small number");
  return static_cast<TokenId>(id);
}

// A token by its text, as tokenizer_config.json gives it: a string, or an object with "content".
std::optional<TokenId> named_token(const TokenizerData& data, const json::object& config, std::string_view name) {
  const json::value* value = member(config, name);
  if (!value) return std::nullopt;
  const std::string_view spelling = value->is_object() ? text(value->get_object(), "content") : text(config, name);
  const auto found = std::ranges::find(data.tokens, spelling);
  if (found == data.tokens.end()) fail(fmt::format("{} is '{}', which is not a token", name, spelling));
  return static_cast<TokenId>(found - data.tokens.begin());
}

void read_vocabulary(const json::object& vocabulary, const json::array& added, TokenizerData& data) {
  const std::size_t count = vocabulary.size() + added.size();
  const auto place = [&](TokenId id) {
    const auto i = static_cast<std::size_t>(id);
    if (i >= count + max_unused_ids) fail(fmt::format("a token's id is {}, among {} tokens", id, count), "ids without large holes");
    if (i >= data.tokens.size()) {
      data.tokens.resize(i + 1);
      data.kinds.resize(i + 1, TokenKind::unused);
    }
    return i;
  };
  for (const auto& [spelling, id] : vocabulary) {
    const std::size_t i = place(token_id(id));
    if (data.kinds[i] != TokenKind::unused) fail(fmt::format("two tokens have id {}", i));
    data.tokens[i] = spelling;
    data.kinds[i] = TokenKind::normal;
  }
  for (const json::value& value : added) {
    const json::object& token = object_in(value, "an added token");
    const json::value* id = member(token, "id");
    if (!id) fail("an added token has no id");
    const std::size_t i = place(token_id(*id));
    data.tokens[i] = text(token, "content");
    data.kinds[i] = flag(token, "special", false) ? TokenKind::control : TokenKind::user_defined;
    if (data.tokens[i].empty()) fail(fmt::format("the added token {} is empty", i));
    if (flag(token, "single_word", false)) fail(fmt::format("the added token '{}' has single_word", data.tokens[i]), "single_word false");
    const StripRule strip{static_cast<TokenId>(i), flag(token, "lstrip", false), flag(token, "rstrip", false)};
    if (strip.left || strip.right) data.strips.push_back(strip);
  }
}

void read_merges(const json::array& merges, TokenizerData& data) {
  data.merges.reserve(merges.size());
  for (const json::value& merge : merges) {
    if (merge.is_string()) {
      data.merges.emplace_back(merge.get_string());
      continue;
    }
    const json::array& pair = array_in(merge, "a merge");
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) fail("a merge is not two strings");
    const std::string_view left = pair[0].get_string(), right = pair[1].get_string();
    if (left.find(' ') != left.npos || right.find(' ') != right.npos) fail("a merge has a space", "byte-level spelling");
    data.merges.push_back(fmt::format("{} {}", left, right));
  }
}

void read_model(const json::object& model, const json::array& added, TokenizerData& data) {
  if (const auto type = text(model, "type"); !type.empty() && type != "BPE")
    fail(fmt::format("the tokenizer's model is {}", type), "BPE, byte-level");
  const json::value *vocabulary = member(model, "vocab"), *merges = member(model, "merges");
  if (!vocabulary || !merges) fail("tokenizer.json has no model.vocab or no model.merges", "byte-level BPE");
  if (flag(model, "byte_fallback", false)) fail("the tokenizer has byte_fallback, as SentencePiece's have", "byte-level BPE");
  if (!text(model, "continuing_subword_prefix").empty() || !text(model, "end_of_word_suffix").empty())
    fail("the tokenizer marks parts of words by a prefix or suffix", "byte-level BPE");
  if (const json::value* dropout = member(model, "dropout"); dropout && !(dropout->is_number() && dropout->to_number<double>() == 0))
    fail("the tokenizer has a dropout", "none");

  data.model = "bpe";
  data.ignore_merges = flag(model, "ignore_merges", false);
  read_vocabulary(object_in(*vocabulary, "model.vocab"), added, data);
  read_merges(array_in(*merges, "model.merges"), data);
  data.missing_byte = named_token(data, model, "unk_token");
  if (data.missing_byte && flag(model, "fuse_unk", false)) fail("the tokenizer has fuse_unk", "one unknown token per byte");
}

void read_normalizer(const json::value& value, TokenizerData& data) {
  const json::object& normalizer = object_in(value, "the normalizer");
  const std::string_view type = text(normalizer, "type");
  if (type == "Sequence" && member(normalizer, "normalizers")) {
    for (const json::value& part : array_in(normalizer.at("normalizers"), "the normalizers")) {
      if (text(object_in(part, "a normalizer"), "type") != "NFC") fail("the tokenizer has a sequence of normalizers", "none, or NFC");
      data.nfc = true;
    }
  } else if (type == "NFC") {
    data.nfc = true;
  } else {
    fail(fmt::format("the tokenizer's normalizer is {}", type), "none, or NFC");
  }
}

std::string split_pattern(const json::object& split) {
  const std::string_view behavior = text(split, "behavior");
  // Removing what an expression does not match is the same where it matches everything, as those in use do.
  if (behavior != "Isolated" && !(behavior == "Removed" && flag(split, "invert", false)))
    fail(fmt::format("a pre-tokeniser splits with behavior {}", behavior), "Isolated");
  const json::value* value = member(split, "pattern");
  if (!value) fail("a pre-tokeniser's Split has no pattern");
  const json::object& pattern = object_in(*value, "a Split's pattern");
  if (const std::string_view regex = text(pattern, "Regex"); !regex.empty()) return std::string(regex);
  const std::string_view literal = text(pattern, "String");
  if (literal.empty()) fail("a Split's pattern is empty");
  std::string quoted;
  for (const char c : literal) {
    if (std::string_view(R"(\^$.[]|()?*+{}-)").find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

// One stage of the pre-tokeniser; true if it was ByteLevel, which must come last.
bool read_stage(const json::object& stage, TokenizerData& data) {
  const std::string_view type = text(stage, "type");
  if (type == "ByteLevel") {
    if (flag(stage, "add_prefix_space", true)) fail("the pre-tokeniser adds a space in front", "add_prefix_space false");
    if (flag(stage, "use_regex", true)) data.split_patterns.emplace_back(gpt2_words);
    return true;
  }
  if (type == "Digits") {
    data.split_patterns.push_back(std::string(each_digit) + (flag(stage, "individual_digits", false) ? "" : "+"));
  } else if (type == "Split") {
    data.split_patterns.push_back(split_pattern(stage));
  } else {
    fail(fmt::format("the pre-tokeniser has a stage {}", type), "Split, Digits and ByteLevel");
  }
  return false;
}

void read_pre_tokenizer(const json::object& pre_tokenizer, TokenizerData& data) {
  bool byte_level = false;
  if (text(pre_tokenizer, "type") == "Sequence" && member(pre_tokenizer, "pretokenizers")) {
    for (const json::value& stage : array_in(pre_tokenizer.at("pretokenizers"), "the pre-tokenisers")) {
      if (byte_level) fail("the pre-tokeniser goes on after ByteLevel", "ByteLevel last");
      byte_level = read_stage(object_in(stage, "a pre-tokeniser"), data);
    }
  } else {
    byte_level = read_stage(pre_tokenizer, data);
  }
  if (!byte_level) fail("the pre-tokeniser is not byte-level", "a last stage ByteLevel");
  data.pre_tokenizer = "none";  // beyond split_patterns
}

// What is put around a text: nothing, or one token in front. Returns that token's text.
std::string_view read_post_processor(const json::object& processor) {
  const std::string_view type = text(processor, "type");
  if (type == "ByteLevel") return {};
  if (type == "Sequence" && member(processor, "processors")) {
    std::string_view first;
    for (const json::value& part : array_in(processor.at("processors"), "the post-processors"))
      if (const auto token = read_post_processor(object_in(part, "a post-processor")); !token.empty()) first = token;
    return first;
  }
  const json::value* single = type == "TemplateProcessing" ? member(processor, "single") : nullptr;
  if (!single) fail(fmt::format("the tokenizer's post-processor is {}", type), "ByteLevel or TemplateProcessing");
  const json::array& parts = array_in(*single, "a template");
  const auto special = [&](std::size_t i) { return member(object_in(parts[i], "a template's part"), "SpecialToken"); };
  if (parts.size() == 1 && !special(0)) return {};
  if (parts.size() != 2 || !special(0) || special(1)) fail("the tokenizer puts tokens after a text", "at most one, in front");
  return text(object_in(*special(0), "a special token"), "id");
}

void read_config(const json::object& config, bool decides_bos, TokenizerData& data) {
  if (const auto bos = named_token(data, config, "bos_token")) data.bos = bos;
  data.eos = named_token(data, config, "eos_token");
  if (decides_bos) data.add_bos = flag(config, "add_bos_token", false) && data.bos;

  const json::value* chat = member(config, "chat_template");
  if (chat && chat->is_string()) data.chat_template = chat->get_string();
  if (!chat || !chat->is_array()) return;
  for (const json::value& value : chat->get_array()) {
    const json::object& entry = object_in(value, "a chat template");
    if (data.chat_template.empty() || text(entry, "name") == "default") data.chat_template = text(entry, "template");
  }
}

void read_generation_config(const json::object& config, TokenizerData& data) {
  const json::value* ends = member(config, "eos_token_id");
  if (!ends) return;
  const auto add = [&](const json::value& end) {
    const TokenId id = token_id(end);
    if (static_cast<std::size_t>(id) >= data.tokens.size()) fail(fmt::format("eos_token_id is {}, which is not a token", id));
    data.end_of_turn.push_back(id);
  };
  if (!ends->is_array()) return add(*ends);
  for (const json::value& end : ends->get_array()) add(end);
}

std::string read_file(const std::filesystem::path& path, bool required) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error && !required) return {};
  if (error) throw Error(ErrorKind::model, path.string() + " cannot be read: " + error.message(), "a Hugging Face directory");
  if (bytes > max_file_bytes) fail(fmt::format("{} is {} bytes", path.string(), bytes), fmt::format("at most {}", max_file_bytes));
  std::string contents(bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(contents.data(), static_cast<std::streamsize>(bytes))) fail(path.string() + " cannot be read");
  return contents;
}

}  // namespace

TokenizerData parse_tokenizer(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                              std::string_view generation_config_json) {
  const json::value document = parse(tokenizer_json, "tokenizer.json");
  const json::object& root = object_in(document, "tokenizer.json");
  const json::value *model = member(root, "model"), *pre_tokenizer = member(root, "pre_tokenizer");
  if (!model || !pre_tokenizer) fail("tokenizer.json has no model or no pre_tokenizer", "byte-level BPE");

  TokenizerData data;
  const json::value* added = member(root, "added_tokens");
  read_model(object_in(*model, "model"), added ? array_in(*added, "added_tokens") : json::array(), data);
  if (const json::value* normalizer = member(root, "normalizer")) read_normalizer(*normalizer, data);
  read_pre_tokenizer(object_in(*pre_tokenizer, "pre_tokenizer"), data);
  const json::value* processor = member(root, "post_processor");
  const std::string_view first = processor ? read_post_processor(object_in(*processor, "post_processor")) : std::string_view();
  if (!first.empty()) {
    const auto found = std::ranges::find(data.tokens, first);
    if (found == data.tokens.end()) fail(fmt::format("the token put in front of a text, '{}', is not a token", first));
    data.bos = static_cast<TokenId>(found - data.tokens.begin());
    data.add_bos = true;
  }
  if (!tokenizer_config_json.empty()) {
    const json::value config = parse(tokenizer_config_json, "tokenizer_config.json");
    read_config(object_in(config, "tokenizer_config.json"), first.empty(), data);
  }
  if (!generation_config_json.empty()) {
    const json::value config = parse(generation_config_json, "generation_config.json");
    read_generation_config(object_in(config, "generation_config.json"), data);
  }
  if (data.eos) data.end_of_turn.push_back(*data.eos);
  return data;
}

TokenizerData read_tokenizer(const std::filesystem::path& directory) {
  TokenizerData data = parse_tokenizer(read_file(directory / "tokenizer.json", true), read_file(directory / "tokenizer_config.json", false),
                                       read_file(directory / "generation_config.json", false));
  if (std::string jinja = read_file(directory / "chat_template.jinja", false); !jinja.empty()) data.chat_template = std::move(jinja);
  return data;
}

}  // namespace lmkit
