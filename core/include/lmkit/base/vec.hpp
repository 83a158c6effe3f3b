// SPDX-License-Identifier: Apache-2.0
//
// Vec<T, N>: N values in registers. What a codec is given and gives back.
#pragma once

#include <lmkit/base/host_device.hpp>

namespace lmkit {

template <class T, int N>
struct Vec {
  static constexpr int size = N;
  T values[N];

  LMKIT_HD constexpr T& operator[](int i) noexcept { return values[i]; }
  LMKIT_HD constexpr const T& operator[](int i) const noexcept { return values[i]; }
};

}  // namespace lmkit
