// SPDX-License-Identifier: Apache-2.0
//
// Detokenizer: tokens one by one -> text, of which each piece is valid UTF-8. A character cut between tokens is held
// back until it is whole; what can never become a character turns into U+FFFD. The pieces side by side are
// replace_invalid_utf8(all the tokens' bytes). One per sequence. [one thread at a time]
#pragma once

#include <lmkit/text/tokenizer.hpp>

#include <string>

namespace lmkit {

class Detokenizer {
 public:
  // The tokenizer must outlive it. Control tokens are left out unless shown.
  explicit Detokenizer(const Tokenizer& tokenizer, bool show_control = false)
      : tokenizer_(&tokenizer), show_control_(show_control) {}

  std::string push(TokenId token);
  std::string finish();  // what was held back, as U+FFFD; ready for a new text

 private:
  const Tokenizer* tokenizer_;
  bool show_control_;
  std::string held_;  // the beginning of a character
};

}  // namespace lmkit
