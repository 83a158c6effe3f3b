// SPDX-License-Identifier: Apache-2.0
//
// Reads the tokenizer of a Hugging Face directory: tokenizer.json (byte-level BPE, as GPT-2, SmolLM2, Llama 3 and Qwen
// have it) and, where they exist, tokenizer_config.json, chat_template.jinja and generation_config.json.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>

#include <filesystem>
#include <string_view>

namespace lmkit {

// Throws Error(model) if a file is missing or malformed, or asks for something that would change token ids and is not
// known here.
TokenizerData read_tokenizer(const std::filesystem::path& directory);

// The same from the files' texts; the second and third may be empty.
TokenizerData parse_tokenizer(std::string_view tokenizer_json, std::string_view tokenizer_config_json = {},
                              std::string_view generation_config_json = {});

}  // namespace lmkit
