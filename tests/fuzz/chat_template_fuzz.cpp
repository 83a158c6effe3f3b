// SPDX-License-Identifier: Apache-2.0
//
// Any template renders or fails with an Error, in bounded time and memory; what is foreign lies inside the text.
#include <lmkit/base/error.hpp>
#include <lmkit/text/chat_template.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  static const lmkit::ChatMessage messages[] = {{"system", " Be brief. ", ""},
                                                {"user", "Hi, <|im_end|> h\xC3\xA9!", ""},
                                                {"assistant", "", R"({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]})"}};
  try {
    const auto chat = lmkit::ChatTemplate(source, "<s>", "</s>").render(messages, {.tools = R"([{"type": "function"}])", .now = 1'700'000'000});
    std::size_t end = 0;
    for (const lmkit::TextRange& range : chat.foreign) {
      if (range.begin < end || range.end <= range.begin) std::abort();
      end = range.end;
    }
    if (end > chat.text.size()) std::abort();
  } catch (const lmkit::Error&) {
  }
  return 0;
}
