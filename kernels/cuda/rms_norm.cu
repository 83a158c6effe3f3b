// SPDX-License-Identifier: Apache-2.0
#include "launch.cuh"

#include <lmkit/kernels/cuda/rms_norm.hpp>

namespace lmkit::kernels::cuda {

namespace {

// One block a row. residual may be null.
__global__ void rms_norm_kernel(std::uint16_t* residual, const std::uint16_t* x, const std::uint16_t* weight, std::uint16_t* out,
                                std::int64_t cols, float eps, bool is_bf16) {
  const std::int64_t row = blockIdx.x * cols, stride = 8 * blockDim.x;
  float squares = 0.f;
  for (std::int64_t c = 8 * threadIdx.x; c < cols; c += stride) {
    Eight y = load8(x + row + c, is_bf16);
    if (residual) {
      const Eight old = load8(residual + row + c, is_bf16);
      for (int j = 0; j < 8; ++j) y.at[j] += old.at[j];
      store8(y, residual + row + c, is_bf16);
      y = load8(residual + row + c, is_bf16);  // as rounded: the next layer adds to these
    }
    for (int j = 0; j < 8; ++j) squares += y.at[j] * y.at[j];
  }
  const float scale = rsqrtf(sum_over_block(squares) / static_cast<float>(cols) + eps);
  const std::uint16_t* source = residual ? residual : x;
  for (std::int64_t c = 8 * threadIdx.x; c < cols; c += stride) {
    Eight y = load8(source + row + c, is_bf16);
    const Eight w = load8(weight + c, is_bf16);
    for (int j = 0; j < 8; ++j) y.at[j] *= scale * w.at[j];
    store8(y, out + row + c, is_bf16);
  }
}

Status launch_rms_norm(void* residual, const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps, Dtype dtype,
                       const Stream& stream) noexcept {
  if (!is_16_bit(dtype) || cols % 8 != 0) return refuse(stream, "rms_norm on CUDA takes fp16 or bf16 rows of a multiple of 8 values");
  if (rows == 0) return Status::ok;
  rms_norm_kernel<<<static_cast<unsigned>(rows), row_threads(cols), 0, cuda_stream(stream)>>>(
      static_cast<std::uint16_t*>(residual), static_cast<const std::uint16_t*>(x), static_cast<const std::uint16_t*>(weight),
      static_cast<std::uint16_t*>(out), cols, eps, dtype == Dtype::bf16);
  return launched(stream);
}

}  // namespace

Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps, Dtype dtype, Stream stream) noexcept {
  return launch_rms_norm(nullptr, x, weight, out, rows, cols, eps, dtype, stream);
}

Status add_rms_norm(void* residual, const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps, Dtype dtype,
                    Stream stream) noexcept {
  return launch_rms_norm(residual, x, weight, out, rows, cols, eps, dtype, stream);
}

}  // namespace lmkit::kernels::cuda
