// SPDX-License-Identifier: Apache-2.0
#include "vocabulary.hpp"

#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/utf8.hpp>

#include <bit>
#include <functional>

namespace lmkit {
namespace {

constexpr std::uint64_t spread(std::uint64_t key) noexcept {  // the finaliser of splitmix64
  key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
  key = (key ^ key >> 27) * 0x94D049BB133111EBu;
  return key ^ key >> 31;
}

// GPT-2's byte-level spelling writes each byte as one character: printable Latin-1 stands for itself, the other bytes
// in order for U+0100, U+0101, …
class ByteSpelling {
 public:
  ByteSpelling() {
    byte_of_.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      byte_of_[static_cast<std::size_t>(itself ? byte : next++)] = static_cast<std::int16_t>(byte);
    }
  }

  // Appends the bytes; false (and nothing appended) if a character is not of the alphabet.
  bool read(std::string_view spelling, std::string& out) const {
    const std::size_t before = out.size();
    for (std::size_t at = 0; at < spelling.size();) {
      const Utf8Char c = decode_utf8(spelling, at);
      if (c.value >= byte_of_.size() || byte_of_[c.value] < 0) {
        out.resize(before);
        return false;
      }
      out += static_cast<char>(byte_of_[c.value]);
      at += c.length;
    }
    return true;
  }

 private:
  std::array<std::int16_t, 0x144> byte_of_;
};

const ByteSpelling byte_spelling;

}  // namespace

void PairTable::reserve(std::size_t pairs) { slots_.assign(std::bit_ceil(2 * pairs + 2), Slot{}); }

PairTable::Slot& PairTable::slot(std::uint64_t key) noexcept {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = spread(key) & mask;
  while (slots_[i].rank != none && slots_[i].key != key) i = (i + 1) & mask;
  return slots_[i];
}

void PairTable::insert(TokenId left, TokenId right, std::uint32_t rank) noexcept {
  const std::uint64_t key = std::uint64_t(left) << 32 | static_cast<std::uint32_t>(right);
  Slot& place = slot(key);
  if (place.rank == none) place = {key, rank};
}

std::uint32_t PairTable::find(TokenId left, TokenId right) const noexcept {
  return const_cast<PairTable*>(this)->slot(std::uint64_t(left) << 32 | static_cast<std::uint32_t>(right)).rank;
}

void SpecialTokens::add(std::string_view spelling, TokenId token) {
  if (spelling.empty()) return;
  starts_[static_cast<std::uint8_t>(spelling[0])] = true;
  std::uint32_t node = 0;
  for (const char c : spelling) {
    const auto [child, is_new] = children_.try_emplace(key(node, c), static_cast<std::uint32_t>(tokens_.size()));
    if (is_new) tokens_.push_back(no_token);
    node = child->second;
  }
  if (tokens_[node] == no_token) tokens_[node] = token;
}

Vocabulary::Vocabulary(const TokenizerData& data) {
  add_pieces(data);
  index_pieces();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    of_byte_[static_cast<std::size_t>(byte)] = find({&c, 1});
  }
  add_merges(data.merges);
}

void Vocabulary::add_pieces(const TokenizerData& data) {
  if (data.tokens.empty()) throw Error(ErrorKind::model, "the tokenizer has no tokens");
  if (!data.kinds.empty() && data.kinds.size() != data.tokens.size())
    throw Error(ErrorKind::model, fmt::format("the tokenizer has {} tokens and {} token types", data.tokens.size(), data.kinds.size()),
                "one type per token");
  std::size_t total = 0;
  for (const std::string& token : data.tokens) total += token.size();
  if (data.tokens.size() >= 1u << 30 || total >= 1u << 31)
    throw Error(ErrorKind::model, fmt::format("the vocabulary is {} tokens of {} bytes", data.tokens.size(), total), "at most 2 GiB");

  kinds_ = data.kinds;
  kinds_.resize(data.tokens.size(), TokenKind::normal);
  bytes_.reserve(total);
  starts_.reserve(data.tokens.size() + 1);
  starts_.push_back(0);
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    const auto token = static_cast<TokenId>(i);
    if (is_special(token) || !byte_spelling.read(data.tokens[i], bytes_)) bytes_ += data.tokens[i];
    starts_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    if (is_special(token) && kind(token) != TokenKind::unused) specials_.add(data.tokens[i], token);
  }
}

void Vocabulary::index_pieces() {
  index_.assign(std::bit_ceil(2 * kinds_.size() + 2), no_token);
  const std::size_t mask = index_.size() - 1;
  for (TokenId token = 0; token < size(); ++token) {
    if (is_special(token)) continue;
    std::size_t i = std::hash<std::string_view>{}(piece(token)) & mask;
    while (index_[i] != no_token && piece(index_[i]) != piece(token)) i = (i + 1) & mask;
    if (index_[i] == no_token) index_[i] = token;
  }
}

TokenId Vocabulary::find(std::string_view bytes) const noexcept {
  const std::size_t mask = index_.size() - 1;
  std::size_t i = std::hash<std::string_view>{}(bytes) & mask;
  while (index_[i] != no_token && piece(index_[i]) != bytes) i = (i + 1) & mask;
  return index_[i];
}

void Vocabulary::add_merges(const std::vector<std::string>& merges) {
  ranks_.reserve(merges.size());
  merged_.reserve(merges.size());
  std::string bytes;
  // A part may be a special token too, which is spelled as it is.
  const auto part = [&](std::string_view spelling) {
    const TokenId token = find(bytes);
    if (token != no_token) return token;
    const auto [special, end] = specials_.longest(spelling, 0, [&](TokenId, std::size_t end) { return end == spelling.size(); });
    return special;
  };
  for (const std::string& merge : merges) {
    const std::size_t space = merge.find(' ', 1);
    const std::string_view left = std::string_view(merge).substr(0, space);
    const std::string_view right = space == std::string::npos ? std::string_view() : std::string_view(merge).substr(space + 1);
    const auto lookup = [&](std::string_view spelling) {
      bytes.clear();
      if (!byte_spelling.read(spelling, bytes)) bytes = spelling;
      return part(spelling);
    };
    std::string whole(left);
    whole += right;
    const TokenId l = lookup(left), r = lookup(right), both = lookup(whole);
    if (right.empty() || l == no_token || r == no_token || both == no_token)
      throw Error(ErrorKind::model, fmt::format("merge {} ('{}') names what is not a token", merged_.size(), replace_invalid_utf8(merge)),
                  "'left right' where left, right and leftright are tokens");
    ranks_.insert(l, r, static_cast<std::uint32_t>(merged_.size()));
    merged_.push_back(both);
  }
}

}  // namespace lmkit
