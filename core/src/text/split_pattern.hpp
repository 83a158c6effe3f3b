// SPDX-License-Identifier: Apache-2.0
//
// The expressions pre-tokenisers are made of, and to_pcre2: an expression as `tokenizers` reads it (Oniguruma), written
// for PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace lmkit {

// `tokenizers`' stage Digits: numbers (categories Nd, Nl, No) one by one. It follows Unicode 17, its expressions Unicode
// 14, and so does PCRE2 10.42; hence the digits that came since.
inline constexpr std::string_view each_digit =
    R"([\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11DE0}-\x{11DE9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{16FF4}-\x{16FF6}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3})"
    R"(\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA}])";

// Throws Error(model) if the expression uses what PCRE2 reads differently.
std::string to_pcre2(std::string_view pattern);

}  // namespace lmkit
