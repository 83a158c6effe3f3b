// SPDX-License-Identifier: Apache-2.0
#include "launch.cuh"

#include <lmkit/kernels/cuda/rms_norm.hpp>

namespace lmkit::kernels::cuda {

namespace {

// One block a row.
__global__ void rms_norm_kernel(const std::uint16_t* x, const std::uint16_t* weight, std::uint16_t* out, std::int64_t cols, float eps, bool is_bf16) {
  start_dependents();
  const std::int64_t row = blockIdx.x * cols, stride = 8 * blockDim.x, first = 8 * threadIdx.x;
  const Eight first_weights = load8(weight + (first < cols ? first : 0), is_bf16);  // while the launch before ends
  wait_for_prerequisites();
  float squares = 0.f;
  for (std::int64_t c = first; c < cols; c += stride) {
    const Eight y = load8(x + row + c, is_bf16);
    for (int j = 0; j < 8; ++j) squares += y.at[j] * y.at[j];
  }
  const float scale = rsqrtf(sum_over_block(squares) / static_cast<float>(cols) + eps);
  for (std::int64_t c = first; c < cols; c += stride) {
    Eight y = load8(x + row + c, is_bf16);
    const Eight w = c == first ? first_weights : load8(weight + c, is_bf16);
    for (int j = 0; j < 8; ++j) y.at[j] *= scale * w.at[j];
    store8(y, out + row + c, is_bf16);
  }
}

// One warp a head.
__global__ void norm_heads_kernel(std::uint16_t* x, std::int64_t stride, const std::uint16_t* weight, std::int64_t rows, std::int64_t heads,
                                  std::int64_t dim, float eps, bool is_bf16) {
  start_dependents();
  wait_for_prerequisites();
  const std::int64_t index = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp_size, row = index / heads, head = index % heads;
  if (row >= rows) return;  // a whole warp
  std::uint16_t* const values = x + row * stride + head * dim;
  const std::int64_t first = 8 * (threadIdx.x % warp_size);
  float squares = 0.f;
  for (std::int64_t c = first; c < dim; c += 8 * warp_size) {
    const Eight y = load8(values + c, is_bf16);
    for (int j = 0; j < 8; ++j) squares += y.at[j] * y.at[j];
  }
  const float scale = rsqrtf(sum_over_columns(sum_over_rows(squares)) / static_cast<float>(dim) + eps);
  for (std::int64_t c = first; c < dim; c += 8 * warp_size) {
    Eight y = load8(values + c, is_bf16);
    const Eight w = load8(weight + head * dim + c, is_bf16);
    for (int j = 0; j < 8; ++j) y.at[j] *= scale * w.at[j];
    store8(y, values + c, is_bf16);
  }
}

}  // namespace

Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps, Dtype dtype, Stream stream) noexcept {
  if (!is_16_bit(dtype) || cols % 8 != 0) return refuse(stream, "rms_norm on CUDA takes fp16 or bf16 rows of a multiple of 8 values");
  if (rows == 0) return Status::ok;
  return launch_early(stream, rms_norm_kernel, rows, row_threads(cols), static_cast<const std::uint16_t*>(x), static_cast<const std::uint16_t*>(weight),
                      static_cast<std::uint16_t*>(out), cols, eps, dtype == Dtype::bf16);
}

Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim, float eps, Dtype dtype,
                  Stream stream) noexcept {
  if (!is_16_bit(dtype) || dim % 8 != 0 || stride % 8 != 0)
    return refuse(stream, "norm_heads on CUDA takes fp16 or bf16 heads of a multiple of 8 values");
  if (rows == 0 || heads == 0) return Status::ok;
  constexpr int warps = 4;
  return launch_early(stream, norm_heads_kernel, (rows * heads + warps - 1) / warps, warps * warp_size, static_cast<std::uint16_t*>(x), stride,
                      static_cast<const std::uint16_t*>(weight), rows, heads, dim, eps, dtype == Dtype::bf16);
}

}  // namespace lmkit::kernels::cuda
