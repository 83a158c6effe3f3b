// SPDX-License-Identifier: Apache-2.0
//
// The expressions pre-tokenisers are made of, and to_pcre2: an expression as `tokenizers` reads it (Oniguruma), written
// for PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace lmkit {

// `tokenizers`' stage ByteLevel with use_regex.
inline constexpr std::string_view gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// `tokenizers`' stage Digits: numbers (categories Nd, Nl, No) one by one. Unlike its expressions it follows Unicode 17,
// whence the digits at the end.
inline constexpr std::string_view each_digit =
    R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}\x{1D2C0}-\x{1D2D3}])";

// Throws Error(model) if the expression uses what PCRE2 reads differently.
std::string to_pcre2(std::string_view pattern);

}  // namespace lmkit
