// SPDX-License-Identifier: Apache-2.0
//
// add: sum += x.
#pragma once

#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels {

// sum, x: (rows, cols), not overlapping
void add(float* sum, const float* x, std::int64_t rows, std::int64_t cols, Stream stream) noexcept;

}  // namespace lmkit::kernels
