// SPDX-License-Identifier: Apache-2.0
//
// A model of random weights in the shape that a config.json describes, to measure the speed of what is not at hand.
//
// All bf16 matrices are views into one buffer of normal values with deviation 1 / sqrt(hidden), so a 70B model takes 64 MiB
// here. A matrix larger than the buffer has rows that overlap: its row_bytes are less than a row's bytes. Norms lie around 1
// and biases around 0. The same config gives the same weights.
#pragma once

#include <lmkit/model/model_file.hpp>

#include <memory>
#include <string>

namespace lmkit {

// `path`: a config.json, or a directory with one. A directory's tokenizer.json is used if it is there; otherwise each of the
// 256 bytes is a token, and token 256 ends a text. Throws Error(model).
std::unique_ptr<ModelFile> open_dummy_model(const std::string& path);

}  // namespace lmkit
