// SPDX-License-Identifier: Apache-2.0
#include "line_editor.hpp"

#include "terminal.hpp"

#include <histedit.h>

#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <iostream>
#include <string_view>

#include <langinfo.h>
#include <unistd.h>

namespace lmkit::cli {
namespace {

// libedit drops what the locale has no character for, so it must be one of UTF-8.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

// libedit's own reader misses a Ctrl-C that comes between the prompt and the read.
int read_character(EditLine*, wchar_t* character) {
  std::mbstate_t state{};
  for (;;) {
    char byte;
    const ssize_t count = wait_for_key() ? ::read(STDIN_FILENO, &byte, 1) : -1;
    if (count <= 0) return static_cast<int>(count);
    const std::size_t used = std::mbrtowc(character, &byte, 1, &state);
    if (used <= 1) return 1;
    if (used == static_cast<std::size_t>(-1)) state = {};  // no character: dropped
  }
}

}  // namespace

struct LineEditor::Impl {
  std::string prompt;
  EditLine* editor = el_init("lmkit", stdin, stderr, stderr);  // the prompt is not data
  History* history = history_init();
  HistEvent event{};

  static char* prompt_of(EditLine* editor) {
    Impl* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return self->prompt.data();
  }

  Impl() {
    use_utf8();
    ::history(history, &event, H_SETSIZE, 1000);
    el_set(editor, EL_CLIENTDATA, this);
    el_set(editor, EL_PROMPT, prompt_of);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_GETCFN, read_character);
    for (const char* mode : {"-d", "-x"}) el_set(editor, EL_SETTY, mode, "+noflsh", nullptr);  // Ctrl-C must not swallow output
    el_set(editor, EL_HIST, ::history, history);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  }

  ~Impl() {
    el_end(editor);
    history_end(history);
  }
};

LineEditor::LineEditor() : impl_(stdin_is_terminal() ? std::make_unique<Impl>() : nullptr) {}
LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  std::string line;
  if (!impl_) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  impl_->prompt = prompt;
  int length = 0;
  const char* text = el_gets(impl_->editor, &length);
  if (!text || length <= 0 || interrupts() > 0) {
    say("");
    return std::nullopt;
  }
  line.assign(text, static_cast<std::size_t>(length));
  if (line.find_first_not_of(" \t\n") != line.npos) ::history(impl_->history, &impl_->event, H_ENTER, line.c_str());
  if (line.ends_with('\n')) line.pop_back();
  return line;
}

}  // namespace lmkit::cli
