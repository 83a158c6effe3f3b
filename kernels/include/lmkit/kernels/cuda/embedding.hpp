// SPDX-License-Identifier: Apache-2.0
//
// embedding on a GPU: out[t] = table[tokens[t]], rows of 16-bit floats. hidden is a multiple of 8, rows are 16-byte aligned.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// table: (vocabulary, hidden); tokens: (count) in [0, vocabulary), on the device; out: (count, hidden)
Status embedding(const void* table, const std::int32_t* tokens, std::int32_t count, std::int64_t hidden, void* out, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
