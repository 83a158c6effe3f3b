// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/chat_template.hpp>
#include <lmkit/text/utf8.hpp>

#include <boost/json.hpp>

#include "jinja_eval.hpp"

namespace lmkit {
namespace {

constexpr std::size_t max_template_bytes = std::size_t{1} << 20;

jinja::Value parse_json(std::string_view text, std::string_view what, boost::json::kind kind) {
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(text, error);
  if (error || value.kind() != kind)
    throw Error(ErrorKind::usage, fmt::format("{} is not a JSON {}", what, boost::json::to_string(kind)) + (error ? ": " + error.message() : ""));
  return jinja::from_json(value);
}

jinja::Value message_value(const ChatMessage& message) {
  jinja::Members members;
  const auto set = [&](const jinja::Text& name, jinja::Value value) {
    for (auto& [known, member] : members)
      if (known.bytes == name.bytes) return void(member = std::move(value));
    members.emplace_back(name, std::move(value));
  };
  set(jinja::Text("role"), jinja::Value(jinja::Text(replace_invalid_utf8(message.role), true)));
  set(jinja::Text("content"), jinja::Value(jinja::Text(replace_invalid_utf8(message.content), true)));
  if (!message.extra.empty()) {
    const jinja::Value extra = parse_json(message.extra, "a message", boost::json::kind::object);
    for (const auto& [name, value] : extra.dict()->members) set(name, value);
  }
  return jinja::Value::dict(std::move(members));
}

// As Jinja reads a template: line ends are "\n", and the last one is not part of it.
std::string normal_lines(std::string_view source) {
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else if (source.substr(i, 2) != "\r\n") {
      out += '\n';
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Body body;
  std::string bos, eos;
};

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

ChatTemplate::ChatTemplate(std::string_view source, std::string bos, std::string eos) {
  if (source.empty()) throw Error(ErrorKind::model, "the model has no chat template", "one in the model's files", "a prompt as plain text");
  if (source.size() > max_template_bytes)
    throw Error(ErrorKind::model, fmt::format("the chat template is {} bytes", source.size()), fmt::format("at most {}", max_template_bytes));
  impl_ = std::make_unique<const Impl>(Impl{jinja::parse(normal_lines(replace_invalid_utf8(source))), std::move(bos), std::move(eos)});
}

RenderedChat ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  std::vector<jinja::Value> list;
  for (const ChatMessage& message : messages) list.push_back(message_value(message));
  jinja::Scope globals;
  if (!options.variables.empty()) {
    const jinja::Value variables = parse_json(options.variables, "the template's variables", boost::json::kind::object);
    for (const auto& [name, value] : variables.dict()->members) globals[name.bytes] = value;
  }
  globals["messages"] = jinja::Value::list(std::move(list));
  globals["tools"] = options.tools.empty() ? jinja::Value() : parse_json(options.tools, "the list of tools", boost::json::kind::array);
  globals.try_emplace("documents");
  globals["add_generation_prompt"] = jinja::Value(options.add_generation_prompt);
  globals["bos_token"] = jinja::Value(jinja::Text(impl_->bos));
  globals["eos_token"] = jinja::Value(jinja::Text(impl_->eos));

  jinja::Text out = jinja::Evaluator(std::move(globals), options.now.value_or(std::time(nullptr))).run(impl_->body);
  return {std::move(out.bytes), std::move(out.foreign)};
}

std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat) {
  return tokenizer.encode(chat.text, {.parse_special = true, .foreign = chat.foreign});
}

}  // namespace lmkit
