// SPDX-License-Identifier: Apache-2.0
//
// lmkit run: one prompt, one answer, as it is made.
#include "commands.hpp"
#include "composition.hpp"
#include "generation.hpp"
#include "ledger_json.hpp"
#include "prompt.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <iostream>

namespace lmkit::cli {
namespace {

constexpr std::size_t largest_prompt = std::size_t{64} << 20;  // bytes

std::string read_all_of_stdin() {
  std::string text;
  char buffer[1 << 16];
  while (const std::size_t count = std::fread(buffer, 1, sizeof buffer, stdin)) {
    text.append(buffer, count);
    if (text.size() > largest_prompt) throw Error(ErrorKind::usage, "the prompt is larger than 64 MiB");
  }
  return text;
}

std::string prompt_of(const Arguments& arguments) {
  const auto& operands = arguments.operands();
  if (operands.size() > 1)
    throw Error(ErrorKind::usage, fmt::format("{} prompts", operands.size()), "one", "quotes around a prompt of several words");
  if (operands.size() == 1 && operands[0] != "-") return operands[0];
  if (stdin_is_terminal()) say(tinted(Tint::note, "prompt, ended by Ctrl-D:"));
  std::string text = read_all_of_stdin();
  if (interrupts() > 0) return {};
  if (operands.empty() && text.ends_with('\n')) text.pop_back();  // what echo adds
  return text;
}

std::vector<TokenId> prompt_tokens(const Arguments& arguments, const ModelFile& model, const Tokenizer& tokenizer, const std::string& text) {
  if (arguments.flag("raw")) return tokenizer.encode(text, {.add_special = true});
  std::vector<ChatMessage> messages = opening(arguments.text("system"));
  messages.push_back({.role = "user", .content = text, .extra = {}});
  return encode_chat(tokenizer, chat_template_of(model, tokenizer).render(messages));
}

boost::json::object json_of(const Answer& answer, bool with_logprobs) {
  boost::json::array tokens;
  for (const Event& event : answer.events) {
    if (event.token < 0) continue;
    boost::json::object token{{"id", event.token}};
    if (with_logprobs) {
      token["logprob"] = event.logprob;
      boost::json::array top;
      for (const TokenLogprob& each : event.top) top.push_back({{"id", each.token}, {"logprob", each.logprob}});
      token["top"] = std::move(top);
    }
    tokens.push_back(std::move(token));
  }
  const Usage& usage = answer.usage;
  return {{"text", answer.text},
          {"finish", name_of(answer.finish)},
          {"tokens", std::move(tokens)},
          {"usage", {{"prompt_tokens", usage.prompt_tokens}, {"generated_tokens", usage.generated_tokens}, {"preemptions", usage.preemptions},
                     {"queued_seconds", usage.queued}, {"first_token_seconds", usage.first_token}, {"total_seconds", usage.total}}}};
}

}  // namespace

int run_command(const Arguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  catch_interrupts();
  if (arguments.given("logprobs") && !arguments.flag("json")) throw Error(ErrorKind::usage, "--logprobs without --json", {}, "--json --logprobs N");
  if (arguments.flag("raw") && arguments.given("system")) throw Error(ErrorKind::usage, "--system with --raw, which uses no chat template");
  Composed composed = compose(arguments);
  const std::string text = prompt_of(arguments);
  if (interrupts() > 0) return interrupted_exit_code;
  require_utf8(text, "the prompt");
  require_utf8(arguments.text("system"), "--system");
  if (text.empty()) throw Error(ErrorKind::usage, "the prompt is empty", "a text as operand or on stdin", "lmkit run \"Why is the sky blue?\"");

  const auto model = open_named_model(arguments);
  const std::string description = composed.description();
  const auto pipeline = start_pipeline(arguments, model, composed, limits_of(arguments, 1));
  const Tokenizer& tokenizer = *pipeline->tokenizer();
  const std::vector<TokenId> prompt = prompt_tokens(arguments, *model, tokenizer, text);
  require_room(prompt.size(), pipeline->ledger(),
               arguments.given("session-len")                                         ? "a larger --session-len"
               : pipeline->ledger().session_len < model->config().max_context ? "--kv int4, or more memory"
                                                                              : "a shorter prompt");

  const bool json = arguments.flag("json");
  double first_token_after_start = 0;
  const Answer answer = generate(pipeline->start(), request_of(arguments, tokenizer, prompt), [&](std::string_view piece) {
    if (first_token_after_start == 0) first_token_after_start = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!json) print(piece);
  });
  if (json) {
    boost::json::object out = json_of(answer, arguments.given("logprobs"));
    out["schema"] = "lmkit.run/1";
    out["model"] = model->config().name;
    out["pipeline"] = description;
    out["ledger"] = json_of(pipeline->ledger());
    out["start_to_first_token_seconds"] = first_token_after_start;
    print(boost::json::serialize(out) + "\n");
  } else {
    print("\n");
  }
  if (arguments.flag("stats"))
    say(stats_line(answer.usage) + (first_token_after_start > 0 ? fmt::format("   first token after start {:.0f} ms", first_token_after_start * 1e3) : ""));
  return answer.finish == Finish::cancelled ? interrupted_exit_code : 0;
}

}  // namespace lmkit::cli
