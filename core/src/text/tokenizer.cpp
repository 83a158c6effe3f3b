// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/tokenizer.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>

#include "bpe.hpp"
#include "normal_form.hpp"
#include "pre_tokenizer.hpp"
#include "vocabulary.hpp"

namespace lmkit {
namespace {

constexpr std::size_t max_text_bytes = std::size_t{1} << 30;

bool is_space(char32_t c) noexcept {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) noexcept {
  while (at < text.size()) {
    const Utf8Char c = decode_utf8(text, at);
    if (!is_space(c.value)) break;
    at += c.length;
  }
  return at;
}

std::string_view without_trailing_spaces(std::string_view text) noexcept {
  for (;;) {
    std::size_t start = text.size();
    while (start > 0 && (text[--start] & 0xC0) == 0x80) {
    }
    if (start == text.size() || !is_space(decode_utf8(text, start).value)) return text;
    text = text.substr(0, start);
  }
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerData& data)
      : vocabulary(data), words(data), add_bos(data.add_bos), missing_byte(data.missing_byte.value_or(no_token)),
        strips(data.strips), bos(data.bos), eos(data.eos), end_of_turn(data.end_of_turn) {}

  Vocabulary vocabulary;
  PreTokenizer words;
  bool add_bos;
  TokenId missing_byte;
  std::vector<StripRule> strips;
  std::optional<TokenId> bos, eos;
  std::vector<TokenId> end_of_turn;

  void encode_plain(std::string_view text, BpeMerger& merger, std::vector<TokenId>& out) const;
};

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer::Tokenizer(const TokenizerData& data) {
  if (data.model != "bpe")
    throw Error(ErrorKind::model, fmt::format("the tokenizer's model is '{}'", data.model), "bpe (byte-level BPE)");
  auto impl = std::make_unique<Impl>(data);
  const Vocabulary& vocabulary = impl->vocabulary;
  const auto check = [&](std::optional<TokenId> token, std::string_view role) {
    if (token && !vocabulary.contains(*token))
      throw Error(ErrorKind::model, fmt::format("the tokenizer's {} token is {}", role, *token),
                  fmt::format("an id below {}", vocabulary.size()));
  };
  check(data.bos, "begin-of-sequence"), check(data.eos, "end-of-sequence"), check(data.missing_byte, "unknown");
  for (const TokenId token : data.end_of_turn) check(token, "end-of-turn");
  for (const StripRule& rule : data.strips) check(rule.token, "stripping");

  std::vector<TokenId>& ends = impl->end_of_turn;
  if (data.eos) ends.push_back(*data.eos);
  for (const std::string_view name : turn_enders) {
    const auto [token, end] = vocabulary.specials().longest(name, 0, [&](TokenId, std::size_t end) { return end == name.size(); });
    if (token != no_token && vocabulary.kind(token) == TokenKind::control) ends.push_back(token);
  }
  std::ranges::sort(ends);
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());  // not ranges::unique: clang 14
  impl_ = std::move(impl);
}

void Tokenizer::Impl::encode_plain(std::string_view text, BpeMerger& merger, std::vector<TokenId>& out) const {
  if (text.empty()) return;
  std::string normal;
  if (words.wants_nfc()) text = normal = to_nfc(text);
  words.split(text, [&](std::string_view word) {
    const TokenId whole = words.ignores_merges() ? vocabulary.find(word) : no_token;
    if (whole != no_token) {
      out.push_back(whole);
    } else {
      merger.append(word, out);
    }
  });
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > max_text_bytes)
    throw Error(ErrorKind::runtime, fmt::format("the text is {} bytes", text.size()), fmt::format("at most {}", max_text_bytes));
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = replace_invalid_utf8(text);

  const Vocabulary& vocabulary = impl_->vocabulary;
  BpeMerger merger(vocabulary, impl_->missing_byte);
  std::vector<TokenId> out;
  if (options.add_special && impl_->add_bos && impl_->bos) out.push_back(*impl_->bos);

  std::size_t plain = 0;  // text[plain, at) awaits encoding
  auto foreign = options.foreign.begin();
  for (std::size_t at = 0; at < text.size();) {
    while (foreign != options.foreign.end() && foreign->end <= at) ++foreign;
    const auto allowed = [&](TokenId token, std::size_t end) {
      if (vocabulary.kind(token) == TokenKind::user_defined) return true;
      return options.parse_special && (foreign == options.foreign.end() || foreign->begin >= end);
    };
    const auto [token, end] = vocabulary.specials().longest(text, at, allowed);
    if (token == no_token) {
      ++at;
      continue;
    }
    const auto rule = std::ranges::find(impl_->strips, token, &StripRule::token);
    const bool strips_left = rule != impl_->strips.end() && rule->left, strips_right = rule != impl_->strips.end() && rule->right;
    const std::string_view before = text.substr(plain, at - plain);
    impl_->encode_plain(strips_left ? without_trailing_spaces(before) : before, merger, out);
    out.push_back(token);
    plain = at = strips_right ? skip_spaces(text, end) : end;
  }
  impl_->encode_plain(text.substr(plain), merger, out);
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens) const {
  std::string out;
  for (const TokenId token : tokens) out += piece(token);
  return out;
}

int Tokenizer::size() const noexcept { return impl_->vocabulary.size(); }

std::string_view Tokenizer::piece(TokenId token) const noexcept {
  return impl_->vocabulary.contains(token) ? impl_->vocabulary.piece(token) : std::string_view();
}

std::optional<TokenId> Tokenizer::find(std::string_view text) const noexcept {
  auto [token, end] =
      impl_->vocabulary.specials().longest(text, 0, [&](TokenId, std::size_t end) { return end == text.size(); });
  if (token == no_token) token = impl_->vocabulary.find(text);
  return token == no_token ? std::nullopt : std::optional(token);
}

bool Tokenizer::is_control(TokenId token) const noexcept {
  if (!impl_->vocabulary.contains(token)) return false;
  const TokenKind kind = impl_->vocabulary.kind(token);
  return kind == TokenKind::control || kind == TokenKind::unknown || kind == TokenKind::unused;
}

bool Tokenizer::is_end_of_turn(TokenId token) const noexcept { return std::ranges::binary_search(impl_->end_of_turn, token); }
const std::vector<TokenId>& Tokenizer::end_of_turn() const noexcept { return impl_->end_of_turn; }
std::optional<TokenId> Tokenizer::bos() const noexcept { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos() const noexcept { return impl_->eos; }

}  // namespace lmkit
