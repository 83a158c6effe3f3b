// SPDX-License-Identifier: Apache-2.0
//
// Status: the outcome of a step's work, where nothing throws. The reason of a failure is kept per thread by the host
// (see lmkit_host::fail) and read with last_failure().
#pragma once

#include <lmkit/abi/plugin.h>

#include <cstdint>

namespace lmkit {

enum class [[nodiscard]] Status : std::int32_t {
  ok = LMKIT_OK,
  invalid_argument = LMKIT_INVALID_ARGUMENT,
  out_of_memory = LMKIT_OUT_OF_MEMORY,
  device_error = LMKIT_DEVICE_ERROR,
  internal_error = LMKIT_INTERNAL_ERROR,
};

}  // namespace lmkit
