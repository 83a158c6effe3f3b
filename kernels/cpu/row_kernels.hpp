// SPDX-License-Identifier: Apache-2.0
//
// The loops of rms_norm and silu_mul over one row, one set per instruction set (isa/row_kernels.cpp), and how rows are
// shared among threads.
#pragma once

#include <lmkit/base/stream.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <algorithm>
#include <cstdint>

namespace lmkit::kernels {

struct RowKernels {
  void (*rms_norm)(const float* x, const float* weight, float* out, std::int64_t cols, float eps) noexcept;  // out may be x
  void (*add)(float* sum, const float* x, std::int64_t cols) noexcept;                                       // sum += x
  void (*silu_mul)(const float* gate, const float* up, float* out, std::int64_t cols) noexcept;
};

template <class Isa>
const RowKernels& row_kernels() noexcept;  // defined in isa/row_kernels.cpp
template <>
const RowKernels& row_kernels<isa::baseline>() noexcept;
template <>
const RowKernels& row_kernels<isa::avx2>() noexcept;
template <>
const RowKernels& row_kernels<isa::avx512>() noexcept;

inline const RowKernels& row_kernels_in_use() noexcept {
  return visit_isa(cpu_isa(), [](auto isa) -> const RowKernels& { return row_kernels<decltype(isa)>(); });
}

// body(row) for every row. 8192 values take about as long as a fork and join (0.5 us with AVX-512), so fewer stay on
// the calling thread: a token's row always does.
template <class Body>
void for_rows(std::int64_t rows, std::int64_t cols, Stream stream, Body body) noexcept {
  const std::int64_t chunks = std::clamp<std::int64_t>(rows * cols / 8192, 1, std::min<std::int64_t>(rows, 4 * stream.workers()));
  stream.parallel_for(static_cast<std::int32_t>(chunks), [&](std::int32_t chunk, int) {
    for (std::int64_t row = chunk * rows / chunks; row < (chunk + 1) * rows / chunks; ++row) body(row);
  });
}

}  // namespace lmkit::kernels
