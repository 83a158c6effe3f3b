// SPDX-License-Identifier: Apache-2.0
//
// Linear: y = x Wᵀ (+ bias), where W may be several matrices side by side, in the order of the device that packed it; and what
// a layer does just before and after such a product, so that a device may do it on the way.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/kernels/gemm.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {

struct Linear {
  std::int64_t rows = 0;  // of all parts together; x (tokens, cols) becomes y (tokens, rows)
  std::int64_t cols = 0;
  std::array<PackedMatrix, 3> parts{};  // of which part_count are used; on a GPU one, of 16-bit floats
  int part_count = 0;                   // 0 where a rank holds nothing: y is 0
  const void* bias = nullptr;           // (rows) of the device's dtype, or null
};

enum class LinearEnd : std::uint8_t {
  store,  // y = the product
  add,    // y += the product
  gate,   // y (tokens, rows / 2) = silu(g) * u, where (g, u) are the halves of the product's row
};

// Of the device's dtype unless said otherwise.
struct LinearArgs {
  const void* x = nullptr;  // (tokens, cols)
  std::int64_t tokens = 0;
  void* y = nullptr;        // (tokens, rows), with a gate (tokens, rows / 2)
  Dtype out = Dtype::f32;   // of y; the device's dtype unless stored
  LinearEnd end = LinearEnd::store;
  const void* norm = nullptr;      // (cols): x is normalised by row first, as rms_norm does; null: taken as it is
  float eps = 0;                   // of the norm
  void* x_scratch = nullptr;       // (tokens, cols), for a norm; may be x
  void* y_scratch = nullptr;       // (tokens, rows), unless stored
  std::byte* workspace = nullptr;  // Device::linear_workspace_bytes, 256-byte aligned
};

}  // namespace lmkit::kernels
