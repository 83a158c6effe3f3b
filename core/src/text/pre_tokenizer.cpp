// SPDX-License-Identifier: Apache-2.0
#include "pre_tokenizer.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <lmkit/base/error.hpp>
#include <lmkit/text/utf8.hpp>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <memory>

#include "split_pattern.hpp"

namespace lmkit {
namespace {

constexpr std::string_view llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Mistral's: a word is capitals, then small letters.
constexpr std::string_view tekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Preset {
  std::string_view name;  // GGUF's tokenizer.ggml.pre
  std::array<std::string_view, 2> patterns;
  bool ignores_merges = false, nfc = false;
};

constexpr Preset presets[] = {{"default", {gpt2_words}},
                              {"gpt-2", {gpt2_words}},
                              {"smollm", {each_digit, gpt2_words}},
                              {"starcoder", {each_digit, gpt2_words}},
                              {"llama-bpe", {llama3}, true},
                              {"llama3", {llama3}, true},
                              {"llama-v3", {llama3}, true},
                              {"qwen2", {qwen2}, false, true},
                              {"deepseek-r1-qwen", {qwen2}, false, true},
                              {"tekken", {tekken}, true},
                              {"none", {}}};

const Preset& preset_named(std::string_view name) {
  const auto found = std::ranges::find(presets, name, &Preset::name);
  if (found != std::end(presets)) return *found;
  std::string names;
  for (const Preset& preset : presets) names += (names.empty() ? "" : ", ") + std::string(preset.name);
  throw Error(ErrorKind::model, fmt::format("the tokenizer's pre-tokeniser is '{}'", name), "one of " + names,
              "a Hugging Face directory, whose tokenizer.json spells the expression out");
}

// Far more than any of the presets needs (they neither recurse nor nest repeats), little enough to end.
constexpr std::uint32_t match_limit = 100'000'000, heap_limit_kib = 256 * 1024;
constexpr std::size_t max_stages = 16;
constexpr std::size_t jit_stack_bytes = 32 * 1024, jit_stack_limit = 64 * 1024 * 1024;

struct Free {
  void operator()(pcre2_code* p) const noexcept { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const noexcept { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const noexcept { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const noexcept { pcre2_jit_stack_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

std::string reason(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

Owned<pcre2_code> compile(std::string_view pattern) {
  const std::string source = to_pcre2(pattern);
  int code = 0;
  PCRE2_SIZE at = 0;
  Owned<pcre2_code> compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), PCRE2_UTF | PCRE2_UCP, &code,
                                           &at, nullptr));
  if (!compiled)
    throw Error(ErrorKind::model, fmt::format("the pre-tokeniser's expression '{}' does not compile: {}", pattern, reason(code)));
  pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);  // without it (some machines forbid it) matching interprets
  return compiled;
}

}  // namespace

struct PreTokenizer::Stage {
  Owned<pcre2_code> code;
};

// One text's matching state.
class PreTokenizer::Matcher {
 public:
  Matcher() : context_(pcre2_match_context_create(nullptr)), data_(pcre2_match_data_create(1, nullptr)) {
    if (!context_ || !data_) throw std::bad_alloc();
    pcre2_set_match_limit(context_.get(), match_limit);
    pcre2_set_heap_limit(context_.get(), heap_limit_kib);
  }

  // The first match of text[from..]; an empty range at the text's end if there is none.
  std::pair<std::size_t, std::size_t> find(const pcre2_code* code, std::string_view text, std::size_t from) {
    int rc = match(code, text, from);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !stack_) {
      stack_.reset(pcre2_jit_stack_create(jit_stack_bytes, jit_stack_limit, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      rc = match(code, text, from);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
    if (rc < 0) throw Error(ErrorKind::runtime, "the pre-tokeniser gave up on the text: " + reason(rc));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data_.get());
    return {bounds[0], std::max(bounds[0], bounds[1])};
  }

 private:
  int match(const pcre2_code* code, std::string_view text, std::size_t from) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK, data_.get(),
                       context_.get());
  }

  Owned<pcre2_match_context> context_;
  Owned<pcre2_match_data> data_;
  Owned<pcre2_jit_stack> stack_;
};

PreTokenizer::PreTokenizer(const TokenizerData& data) : ignores_merges_(data.ignore_merges), wants_nfc_(data.nfc) {
  std::vector<std::string> patterns = data.split_patterns;
  if (patterns.empty()) {
    const Preset& preset = preset_named(data.pre_tokenizer);
    ignores_merges_ = ignores_merges_ || preset.ignores_merges;
    wants_nfc_ = wants_nfc_ || preset.nfc;
    for (const std::string_view pattern : preset.patterns)
      if (!pattern.empty()) patterns.emplace_back(pattern);
  }
  if (patterns.size() > max_stages)
    throw Error(ErrorKind::model, fmt::format("the pre-tokeniser has {} stages", patterns.size()), fmt::format("at most {}", max_stages));
  for (const std::string& pattern : patterns) stages_.push_back({compile(pattern)});
}

PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::split(std::string_view text, const Sink& word) const {
  Matcher matcher;
  split_from(0, text, matcher, word);
}

void PreTokenizer::split_from(std::size_t stage, std::string_view piece, Matcher& matcher, const Sink& word) const {
  if (piece.empty()) return;
  if (stage == stages_.size()) return word(piece);
  std::size_t done = 0;  // everything before it has been given out
  for (std::size_t from = 0; from < piece.size();) {
    const auto [begin, end] = matcher.find(stages_[stage].code.get(), piece, from);
    if (begin == end && begin < piece.size()) {  // an empty match cuts nothing
      from = begin + decode_utf8(piece, begin).length;
      continue;
    }
    split_from(stage + 1, piece.substr(done, begin - done), matcher, word);
    split_from(stage + 1, piece.substr(begin, end - begin), matcher, word);
    done = from = end;
  }
  split_from(stage + 1, piece.substr(done), matcher, word);
}

}  // namespace lmkit
