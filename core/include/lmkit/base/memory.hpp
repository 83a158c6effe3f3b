// SPDX-License-Identifier: Apache-2.0
//
// Host memory this process can still get.
#pragma once

#include <cstdint>

namespace lmkit {

// The smaller of MemAvailable and what its control group has left, in bytes.
std::int64_t available_memory();

}  // namespace lmkit
