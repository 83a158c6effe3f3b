// SPDX-License-Identifier: Apache-2.0
//
// A vocabulary for tests: token b is byte b, and then come the merges' results. Parts are written as plain bytes.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>
#include <lmkit/text/utf8.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmkit_test {

// Byte-level spelling, by the rule of GPT-2's encoder.
inline std::string spelled(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    const auto printable = [](int b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF); };
    char32_t shown = byte;
    if (!printable(byte)) {
      shown = 256;
      for (int b = 0; b < byte; ++b) shown += !printable(b);
    }
    lmkit::append_utf8(out, shown);
  }
  return out;
}

inline lmkit::TokenizerData small_vocabulary(const std::vector<std::pair<std::string, std::string>>& merges) {
  lmkit::TokenizerData data;
  data.model = "bpe";
  data.pre_tokenizer = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) data.tokens.push_back(spelled(std::string(1, static_cast<char>(byte))));
  const auto add = [&](const std::string& bytes) {
    if (std::find(data.tokens.begin(), data.tokens.end(), spelled(bytes)) == data.tokens.end()) data.tokens.push_back(spelled(bytes));
  };
  for (const auto& [left, right] : merges) {
    add(left), add(right), add(left + right);
    data.merges.push_back(spelled(left) + " " + spelled(right));
  }
  data.kinds.assign(data.tokens.size(), lmkit::TokenKind::normal);
  return data;
}

inline lmkit::TokenId add_special(lmkit::TokenizerData& data, std::string spelling, lmkit::TokenKind kind) {
  data.tokens.push_back(std::move(spelling));
  data.kinds.push_back(kind);
  return static_cast<lmkit::TokenId>(data.tokens.size()) - 1;
}

}  // namespace lmkit_test
