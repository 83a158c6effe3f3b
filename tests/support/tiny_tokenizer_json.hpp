// SPDX-License-Identifier: Apache-2.0
//
// The tokens of tiny_gguf.hpp as a tokenizer.json.
#pragma once

#include "tiny_gguf.hpp"

#include <fmt/format.h>

#include <string>
#include <vector>

namespace lmkit_test {

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

inline std::string tiny_tokenizer_json() {
  const TinyTokens tiny;
  std::vector<std::string> vocab, added;
  for (std::size_t i = 0; i < tiny.tokens.size(); ++i)
    if (tiny.kinds[i] == 1) vocab.push_back(fmt::format("{}:{}", quoted(tiny.tokens[i]), i));
    else added.push_back(fmt::format(R"({{"id":{},"content":{},"special":true}})", i, quoted(tiny.tokens[i])));
  std::vector<std::string> merges;
  for (const auto& merge : tiny.merges) merges.push_back(quoted(merge));
  return fmt::format(
      R"({{"version":"1.0","added_tokens":[{}],"normalizer":null,"decoder":{{"type":"ByteLevel"}},)"
      R"("pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},)"
      R"("model":{{"type":"BPE","vocab":{{{}}},"merges":[{}]}}}})",
      fmt::join(added, ","), fmt::join(vocab, ","), fmt::join(merges, ","));
}

}  // namespace lmkit_test
