// SPDX-License-Identifier: Apache-2.0
//
// ChatTemplate: messages -> the prompt's text, by the Jinja template that comes with a model, rendered as transformers
// does (trim_blocks, lstrip_blocks, loop controls, tojson, raise_exception, strftime_now).
//
// The result also says which of its bytes come from messages and tools. encode_chat reads control tokens only in the
// template's own text, so that a message that spells "<|im_end|>" cannot end its turn.
#pragma once

#include <lmkit/text/tokenizer.hpp>

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", "tool"
  std::string content;  // UTF-8
  std::string extra{};    // a JSON object of further members (tool_calls, …), which win over the two above; may be empty
};

struct ChatOptions {
  bool add_generation_prompt = true;  // end with the beginning of the assistant's turn
  std::string tools{};                  // a JSON array; empty: none
  std::string variables{};              // a JSON object of what else the template reads (enable_thinking, …); may be empty
  std::optional<std::time_t> now{};     // for strftime_now; the clock if not given
};

struct RenderedChat {
  std::string text;
  std::vector<TextRange> foreign;  // sorted, disjoint: what came from messages, tools and variables
};

class ChatTemplate {
 public:
  // bos and eos: those tokens' spellings, which templates write. Throws Error(model) with the line if the source is
  // empty or is no template.
  ChatTemplate(std::string_view source, std::string bos, std::string eos);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Throws Error(model) if the template fails, Error(runtime) if it refuses the messages, Error(usage) if a JSON text is
  // malformed. [any-thread]
  RenderedChat render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat);

}  // namespace lmkit
