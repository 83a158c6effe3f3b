// SPDX-License-Identifier: Apache-2.0
#include "prompt.hpp"

#include <lmkit/base/error.hpp>

#include <fmt/format.h>

namespace lmkit::cli {

ChatTemplate chat_template_of(const ModelFile& model, const Tokenizer& tokenizer) {
  const std::string& source = model.tokenizer().chat_template;
  if (source.empty()) throw Error(ErrorKind::usage, fmt::format("{} has no chat template", model.config().name), {}, "lmkit run --raw");
  const auto spelling = [&](std::optional<TokenId> token) { return token ? std::string(tokenizer.piece(*token)) : std::string(); };
  return ChatTemplate(source, spelling(tokenizer.bos()), spelling(tokenizer.eos()));
}

std::vector<ChatMessage> opening(const std::string& system) {
  if (system.empty()) return {};
  return {{.role = "system", .content = system, .extra = {}}};
}

void require_room(std::size_t prompt_tokens, const Ledger& ledger, const std::string& remedy) {
  if (prompt_tokens >= static_cast<std::size_t>(ledger.session_len))
    throw Error(ErrorKind::usage, fmt::format("the prompt has {} tokens", prompt_tokens),
                fmt::format("fewer than the {} that a sequence may have", ledger.session_len), remedy);
}

}  // namespace lmkit::cli
