// SPDX-License-Identifier: Apache-2.0
#include "launch.cuh"

#include <lmkit/kernels/cuda/activation.hpp>

namespace lmkit::kernels::cuda {

namespace {

__global__ void silu_mul_kernel(const std::uint16_t* gate_up, std::uint16_t* out, std::int64_t rows, std::int64_t cols, bool is_bf16) {
  start_dependents();
  wait_for_prerequisites();
  const std::int64_t runs = cols / 8, n = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (n >= rows * runs) return;
  const std::int64_t row = n / runs, c = n % runs * 8;
  Eight y = load8(gate_up + 2 * row * cols + c, is_bf16);
  const Eight up = load8(gate_up + (2 * row + 1) * cols + c, is_bf16);
  for (int j = 0; j < 8; ++j) y.at[j] = y.at[j] / (1.f + __expf(-y.at[j])) * up.at[j];
  store8(y, out + row * cols + c, is_bf16);
}

}  // namespace

Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols, Dtype dtype, Stream stream) noexcept {
  if (!is_16_bit(dtype) || cols % 8 != 0) return refuse(stream, "silu_mul on CUDA takes fp16 or bf16 rows of a multiple of 8 values");
  if (rows == 0) return Status::ok;
  const std::int64_t threads = rows * (cols / 8);
  return launch_early(stream, silu_mul_kernel, (threads + 255) / 256, 256, static_cast<const std::uint16_t*>(gate_up),
                      static_cast<std::uint16_t*>(out), rows, cols, dtype == Dtype::bf16);
}

}  // namespace lmkit::kernels::cuda
