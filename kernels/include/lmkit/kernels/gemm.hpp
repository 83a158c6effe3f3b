// SPDX-License-Identifier: Apache-2.0
//
// gemm: y = x W^T for a few or many rows of x against weights in their file format, never expanded in memory.
//
// A PackedMatrix holds the same bits as the file's rows, interleaved 16 rows at a time so that a vector register holds
// one step of 16 rows and no horizontal sum is needed. Quantised weights meet activations quantised to 15 bits in
// runs of 32 (scale = max|x| / (127 * 128)), as integer dot products of the activations' high and low bytes (on AVX2 of both at once):
//     sum_i (d q_i + m) (s a_i) = d s (sum_i q_i a_i) + m s (sum_i a_i)
// Cost: the weights are read once per call (memory bound for few tokens), 2 * tokens * rows * cols operations.
#pragma once

#include <lmkit/base/stream.hpp>
#include <lmkit/base/tensor_view.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace lmkit::kernels {

class PackedMatrix {
 public:
  static constexpr int tile_rows = 16;  // rows are padded to whole tiles

  static std::int64_t bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) noexcept;

  PackedMatrix() = default;
  // Copies `source` into storage: bytes(...) long, 64-byte aligned, outlives this.
  PackedMatrix(const MatrixView& source, std::byte* storage, Stream stream) noexcept;

  // A matrix that lies in `data` in its device's order.
  static PackedMatrix packed_already(WeightFormat format, std::int64_t rows, std::int64_t cols, const std::byte* data) noexcept {
    PackedMatrix matrix;
    matrix.format_ = format;
    matrix.rows_ = rows;
    matrix.cols_ = cols;
    matrix.data_ = data;
    return matrix;
  }

  WeightFormat format() const noexcept { return format_; }
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t cols() const noexcept { return cols_; }
  const std::byte* data() const noexcept { return data_; }

 private:
  WeightFormat format_ = WeightFormat::f32;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  const std::byte* data_ = nullptr;
};

// Scratch for activations of a call: enough for any gemm with at most these sizes.
std::int64_t gemm_workspace_bytes(std::int64_t max_tokens, std::int64_t max_cols) noexcept;

// y[t] = the parts' rows side by side, times x[t].   x: (tokens, cols), rows x_stride floats apart;
// y: (tokens, sum of rows), rows y_stride apart. Parts share cols; their formats may differ. workspace: 64-byte aligned.
// A row's result does not depend on how many other rows are in the call.
void gemm(std::span<const PackedMatrix> parts, const float* x, std::int64_t x_stride, std::int64_t tokens, float* y,
          std::int64_t y_stride, std::byte* workspace, Stream stream) noexcept;

// The plain version: expands one row at a time and sums in double.
void gemm_reference(const MatrixView& weights, const float* x, std::int64_t x_stride, std::int64_t tokens, float* y,
                    std::int64_t y_stride) noexcept;

}  // namespace lmkit::kernels
