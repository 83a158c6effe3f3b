// SPDX-License-Identifier: Apache-2.0
#include "launch.cuh"

#include <lmkit/kernels/cuda/add.hpp>

namespace lmkit::kernels::cuda {

namespace {

__global__ void add_kernel(std::uint16_t* sum, const std::uint16_t* x, std::int64_t runs, bool is_bf16) {
  start_dependents();
  wait_for_prerequisites();
  const std::int64_t n = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (n >= runs) return;
  Eight y = load8(sum + 8 * n, is_bf16);
  const Eight more = load8(x + 8 * n, is_bf16);
  for (int j = 0; j < 8; ++j) y.at[j] += more.at[j];
  store8(y, sum + 8 * n, is_bf16);
}

}  // namespace

Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols, Dtype dtype, Stream stream) noexcept {
  if (!is_16_bit(dtype) || cols % 8 != 0) return refuse(stream, "add on CUDA takes fp16 or bf16 rows of a multiple of 8 values");
  if (rows == 0) return Status::ok;
  const std::int64_t runs = rows * (cols / 8);
  return launch_early(stream, add_kernel, (runs + 255) / 256, 256, static_cast<std::uint16_t*>(sum), static_cast<const std::uint16_t*>(x), runs,
                      dtype == Dtype::bf16);
}

}  // namespace lmkit::kernels::cuda
