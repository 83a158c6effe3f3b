// SPDX-License-Identifier: Apache-2.0
//
// embedding: out[t] = table[tokens[t]], expanded to float. Reads count rows of the table.
#pragma once

#include <lmkit/base/stream.hpp>
#include <lmkit/base/tensor_view.hpp>

#include <cstdint>

namespace lmkit::kernels {

// table: (vocabulary, hidden) in any WeightFormat; tokens: (count) in [0, vocabulary); out: (count, hidden)
void embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, float* out, Stream stream) noexcept;

// One row of a weight matrix as floats: out (cols). The plain reading of the formats in base/dtype.hpp.
void expand_row(const MatrixView& matrix, std::int64_t row, float* out) noexcept;

}  // namespace lmkit::kernels
