// SPDX-License-Identifier: Apache-2.0
//
// softmax: the passes over a row of logits that sampling is made of. On the calling thread; one row is 200 KB.
#pragma once

#include <cstdint>

namespace lmkit::kernels {

// NaN if any value is; -inf of none.
float largest(const float* values, std::int64_t count) noexcept;

// The sum of w[i] = exp((x[i] - largest) * scale), and the w[i] themselves if out is not null. scale > 0, largest >= all
// x, all finite but for x of -inf, whose weight is 0. Relative error of a w below 3e-7; what is below 1e-37 becomes 0. The sum is added up in double.
double softmax_weights(const float* x, std::int64_t count, float largest, float scale, float* out) noexcept;

double sum(const float* values, std::int64_t count) noexcept;  // in double, a few hundred at a time in float

}  // namespace lmkit::kernels
