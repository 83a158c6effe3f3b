// SPDX-License-Identifier: Apache-2.0
//
// PreTokenizer: cuts text into the words that BPE works on. Each stage is a regular expression (PCRE2, compiled to
// machine code) that cuts every piece the stage before it left: matches become pieces, and so does what lies between.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

class PreTokenizer {
 public:
  // Throws Error(model).
  explicit PreTokenizer(const TokenizerData& data);
  ~PreTokenizer();

  // Calls word(part) for each word in order. `text` is valid UTF-8. Throws Error(runtime) if an expression exceeds its
  // limits.
  using Sink = std::function<void(std::string_view)>;
  void split(std::string_view text, const Sink& word) const;

  bool ignores_merges() const noexcept { return ignores_merges_; }
  bool wants_nfc() const noexcept { return wants_nfc_; }

 private:
  struct Stage;
  class Matcher;
  void split_from(std::size_t stage, std::string_view piece, Matcher& matcher, const Sink& word) const;

  std::vector<Stage> stages_;
  bool ignores_merges_ = false, wants_nfc_ = false;
};

}  // namespace lmkit
