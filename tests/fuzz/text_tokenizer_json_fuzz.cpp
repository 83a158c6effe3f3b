// SPDX-License-Identifier: Apache-2.0
//
// Any tokenizer.json is read or refused with an Error, and what was read can encode. Up to three files, parted by NUL.
#include <lmkit/base/error.hpp>
#include <lmkit/text/tokenizer.hpp>
#include <lmkit/text/tokenizer_json.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size), files[3];
  for (std::string_view& file : files) {
    file = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(file.size() + 1, rest.size()));
  }
  try {
    const lmkit::Tokenizer tokenizer(lmkit::parse_tokenizer(files[0], files[1], files[2]));
    tokenizer.decode(tokenizer.encode("Hello world's 123 <a>\n  \xC3\xA9", {.add_special = true, .parse_special = true}));
  } catch (const lmkit::Error&) {
  }
  return 0;
}
