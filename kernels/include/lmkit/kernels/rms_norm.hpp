// SPDX-License-Identifier: Apache-2.0
//
// rms_norm: out = x / sqrt(mean(x^2) + eps) * weight, per row (RMSNorm, arXiv:1910.07467).
#pragma once

#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels {

// x, out: (rows, cols), may be the same; weight: (cols)
void rms_norm(const float* x, const float* weight, float* out, std::int64_t rows, std::int64_t cols, float eps, Stream stream) noexcept;

// Each head of x by itself, in place. x: (rows, heads, dim), `stride` values from row to row; weight: (heads, dim)
void norm_heads(float* x, std::int64_t stride, const float* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim, float eps,
                Stream stream) noexcept;

}  // namespace lmkit::kernels
