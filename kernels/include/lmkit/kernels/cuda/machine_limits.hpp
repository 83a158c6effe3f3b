// SPDX-License-Identifier: Apache-2.0
//
// What the current GPU can do at best: what the other kernels are held against. [load-time]
#pragma once

#include <cstdint>

namespace lmkit::kernels::cuda {

// Bytes per second of reading a buffer of `bytes` once; the best of several passes. 0 if the memory is not to be had.
double read_bandwidth(std::int64_t bytes) noexcept;

}  // namespace lmkit::kernels::cuda
