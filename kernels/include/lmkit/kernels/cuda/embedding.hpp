// SPDX-License-Identifier: Apache-2.0
//
// embedding on a GPU: out[t] = table[tokens[t]], rows of 16-bit floats. hidden is a multiple of 8, rows are 16-byte aligned.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/kernels/cuda/sample.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// table: (vocabulary, hidden); tokens: (count) in [0, vocabulary), on the device; out: (count, hidden). A token t below 0 is
// drawn[-1 - t].token, or 0 if that was not a number.
Status embedding(const void* table, const std::int32_t* tokens, const Sampled* drawn, std::int32_t count, std::int64_t hidden, void* out,
                 Stream stream) noexcept;

// Whether this build's kernels run on the current device. [load-time]
bool runs_here() noexcept;

}  // namespace lmkit::kernels::cuda
