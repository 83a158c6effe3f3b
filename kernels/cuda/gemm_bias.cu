// SPDX-License-Identifier: Apache-2.0
#include "gemm_library.hpp"
#include "launch.cuh"

namespace lmkit::kernels::cuda {

namespace {

// Eight values a thread.
__global__ void seed_kernel(const std::uint16_t* bias, float* y, std::int64_t runs, std::int64_t rows, bool is_bf16) {
  const std::int64_t n = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (n >= runs) return;
  const Eight b = load8(bias + n * 8 % rows, is_bf16);
  float4* out = reinterpret_cast<float4*>(y + n * 8);
  out[0] = make_float4(b.at[0], b.at[1], b.at[2], b.at[3]);
  out[1] = make_float4(b.at[4], b.at[5], b.at[6], b.at[7]);
}

}  // namespace

Status seed_with_bias(const void* bias, float* y, std::int64_t tokens, std::int64_t rows, Dtype dtype, Stream stream) noexcept {
  const std::int64_t runs = tokens * rows / 8;
  seed_kernel<<<static_cast<unsigned>((runs + 255) / 256), 256, 0, cuda_stream(stream)>>>(static_cast<const std::uint16_t*>(bias), y, runs, rows,
                                                                                           dtype == Dtype::bf16);
  return launched(stream);
}

}  // namespace lmkit::kernels::cuda
