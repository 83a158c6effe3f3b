// SPDX-License-Identifier: Apache-2.0
#include <lmkit/text/detokenizer.hpp>
#include <lmkit/text/utf8.hpp>

#include <utility>

namespace lmkit {

std::string Detokenizer::push(TokenId token) {
  if (tokenizer_->is_control(token) && !show_control_) return {};
  const std::string bytes = std::exchange(held_, {}).append(tokenizer_->piece(token));
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const Utf8Char c = decode_utf8(bytes, at);
    if (c.kind == Utf8Kind::incomplete) {
      held_ = bytes.substr(at);
      break;
    }
    append_utf8(out, c.value);
    at += c.length;
  }
  return out;
}

std::string Detokenizer::finish() { return replace_invalid_utf8(std::exchange(held_, {})); }

}  // namespace lmkit
