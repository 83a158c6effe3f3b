// SPDX-License-Identifier: Apache-2.0
//
// What GGUF metadata says about a model. The architecture's keys start with its name ("llama.block_count");
// the tokenizer's with "tokenizer.ggml.". Errors are Error(model) and name the key.
#pragma once

#include <lmkit/model/gguf.hpp>
#include <lmkit/model/model_config.hpp>
#include <lmkit/text/tokenizer_data.hpp>

namespace lmkit {

// Checked: every field in its range, and what tensors there are agrees with it.
ModelConfig read_model_config(const Gguf& gguf);

TokenizerData read_tokenizer(const Gguf& gguf);

}  // namespace lmkit
