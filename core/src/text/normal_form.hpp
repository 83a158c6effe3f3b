// SPDX-License-Identifier: Apache-2.0
//
// Unicode normal form C (UAX #15), in O(n log n) also for long runs of combining marks.
#pragma once

#include <string>
#include <string_view>

namespace lmkit {

std::string to_nfc(std::string_view text);  // text is valid UTF-8

}  // namespace lmkit
