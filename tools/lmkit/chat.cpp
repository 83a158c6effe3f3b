// SPDX-License-Identifier: Apache-2.0
//
// lmkit chat: several turns. Ctrl-C stops the answer, at the prompt it clears the line; twice quits.
#include "commands.hpp"
#include "composition.hpp"
#include "generation.hpp"
#include "line_editor.hpp"
#include "prompt.hpp"
#include "terminal.hpp"

#include <lmkit/base/did_you_mean.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/base/log.hpp>

#include <fmt/format.h>

namespace lmkit::cli {
namespace {

constexpr std::string_view help_text =
    "/system TEXT  set the system message and start again\n"
    "/reset        forget the conversation\n"
    "/quit         end (also Ctrl-D)\n"
    "/help         this\n"
    "Anything else is a message; // starts one with a slash. Ctrl-C stops an answer, twice quits.";

class Conversation {
 public:
  Conversation(const Arguments& arguments, AnyPipeline& pipeline)
      : arguments_(arguments), pipeline_(pipeline), service_(pipeline.start()), tokenizer_(*pipeline.tokenizer()),
        template_(chat_template_of(pipeline.model(), tokenizer_)), system_(arguments.text("system")), messages_(opening(system_)) {}

  void reset() { messages_ = opening(system_); }

  void set_system(std::string text) {
    system_ = std::move(text);
    reset();
  }

  // A failed turn leaves the conversation as it was.
  void say_to_model(std::string text) {
    std::vector<ChatMessage> messages = messages_;
    messages.push_back({.role = "user", .content = std::move(text), .extra = {}});
    std::vector<TokenId> prompt = encode_chat(tokenizer_, template_.render(messages));
    require_room(prompt.size(), pipeline_.ledger(), "/reset starts again");
    Answer answer = generate(service_, request_of(arguments_, tokenizer_, std::move(prompt)), [](std::string_view piece) { print(piece); });
    print("\n");
    if (arguments_.flag("stats")) say(tinted(Tint::note, stats_line(answer.usage)));
    if (answer.finish == Finish::length) say(tinted(Tint::note, "(the answer is as long as it may be)"));
    messages.push_back({.role = "assistant", .content = std::move(answer.text), .extra = {}});
    messages_ = std::move(messages);
  }

 private:
  const Arguments& arguments_;
  AnyPipeline& pipeline_;
  Service& service_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
  std::string system_;
  std::vector<ChatMessage> messages_;
};

// False: the user wants to leave.
bool obey(Conversation& conversation, const std::string& line) {
  const std::string word = line.substr(0, line.find(' '));
  const std::string rest = line.size() > word.size() ? line.substr(word.size() + 1) : "";
  if (word == "/quit" || word == "/exit") return false;
  if (word == "/help") say(help_text);
  else if (word == "/reset") conversation.reset();
  else if (word == "/system") conversation.set_system(rest);
  else {
    const std::string near = did_you_mean(word, std::vector<std::string>{"/help", "/reset", "/system", "/quit"});
    say(fmt::format("unknown: {}; try {}", word, near.empty() ? "/help" : near));
  }
  return true;
}

}  // namespace

int chat_command(const Arguments& arguments) {
  if (!arguments.operands().empty()) throw Error(ErrorKind::usage, "lmkit chat takes no operands", {}, "lmkit run PROMPT");
  require_utf8(arguments.text("system"), "--system");
  catch_interrupts();
  Composed composed = compose(arguments);
  const auto pipeline = start_pipeline(arguments, open_named_model(arguments), composed, limits_of(arguments, 1));
  Conversation conversation(arguments, *pipeline);
  LineEditor editor;
  if (stdin_is_terminal()) say(tinted(Tint::note, "/help lists what can be typed besides messages"));
  bool interrupted = false;  // the last thing that came was Ctrl-C: another one quits
  for (;;) {
    forget_interrupts();
    std::optional<std::string> line = editor.read("> ");
    if (!line && interrupts() == 0) return 0;
    if (!line) {
      if (interrupted || !stdin_is_terminal()) return interrupted_exit_code;
      say(tinted(Tint::note, "(Ctrl-C again quits)"));
      interrupted = true;
      continue;
    }
    if (line->find_first_not_of(" \t") == line->npos) continue;
    try {
      require_utf8(*line, "the message");
      if (line->starts_with('/') && !line->starts_with("//")) {
        if (!obey(conversation, *line)) return 0;
      } else {
        conversation.say_to_model(line->starts_with("//") ? line->substr(1) : *line);
      }
    } catch (const Error& error) {
      if (!stdin_is_terminal()) throw;
      log(LogLevel::error, error.what());
    }
    if (interrupts() > 1) return interrupted_exit_code;
    interrupted = interrupts() > 0;
  }
}

}  // namespace lmkit::cli
