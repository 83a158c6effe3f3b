// SPDX-License-Identifier: Apache-2.0
//
// Is this text valid UTF-8? For names and texts out of model files.
#pragma once

#include <string_view>

namespace lmkit {

bool is_utf8(std::string_view text) noexcept;

}  // namespace lmkit
