// SPDX-License-Identifier: Apache-2.0
//
// Any bytes are encoded; decoding gives them back (as replace_invalid_utf8 reads them), also piece by piece. The first
// byte chooses the pre-tokeniser.
#include <lmkit/text/detokenizer.hpp>
#include <lmkit/text/utf8.hpp>

#include <cstdlib>

#include "../core/text/small_vocabulary.hpp"

using namespace lmkit;

namespace {

Tokenizer make(const char* pre_tokenizer, bool nfc) {
  TokenizerData data = lmkit_test::small_vocabulary({{"a", "b"}, {"ab", "ab"}, {" ", " "}, {" ", "a"}, {"\xC3", "\xA9"}, {"'", "s"}, {"1", "1"}});
  lmkit_test::add_special(data, "<end>", TokenKind::control);
  lmkit_test::add_special(data, "<en", TokenKind::user_defined);
  data.pre_tokenizer = pre_tokenizer;
  data.nfc = nfc;
  return Tokenizer(data);
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Tokenizer tokenizers[] = {make("smollm", false), make("llama-bpe", false), make("qwen2", true), make("gpt-2", false)};
  if (size == 0) return 0;
  const std::size_t choice = data[0] % 4;
  const Tokenizer& tokenizer = tokenizers[choice];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);

  const TextRange foreign[] = {{text.size() / 3, text.size() / 2}};
  const bool has_foreign = is_valid_utf8(text) && foreign[0].begin < foreign[0].end;
  const auto ids = tokenizer.encode(text, {.parse_special = true, .foreign = has_foreign ? std::span<const TextRange>(foreign) : std::span<const TextRange>()});
  const std::string decoded = tokenizer.decode(ids);
  if (choice != 2) require(decoded == replace_invalid_utf8(text));
  require(is_valid_utf8(decoded));

  Detokenizer detokenizer(tokenizer, true);
  std::string streamed;
  for (const TokenId id : ids) {
    const std::string piece = detokenizer.push(id);
    require(is_valid_utf8(piece));
    streamed += piece;
  }
  require(streamed + detokenizer.finish() == decoded);
  return 0;
}
