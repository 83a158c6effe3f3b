// SPDX-License-Identifier: Apache-2.0
//
// From messages to the tokens of a prompt.
#pragma once

#include <lmkit/engine/memory_plan.hpp>
#include <lmkit/model/model_file.hpp>
#include <lmkit/text/chat_template.hpp>
#include <lmkit/text/tokenizer.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace lmkit::cli {

// The model's own template; throws Error(usage) when it has none.
ChatTemplate chat_template_of(const ModelFile& model, const Tokenizer& tokenizer);

// The conversation before the user's first message: the system message, if there is one.
std::vector<ChatMessage> opening(const std::string& system);

// Throws Error(usage) when a prompt leaves no room for an answer.
void require_room(std::size_t prompt_tokens, const Ledger& ledger, const std::string& remedy);

}  // namespace lmkit::cli
