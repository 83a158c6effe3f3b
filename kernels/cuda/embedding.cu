// SPDX-License-Identifier: Apache-2.0
#include "launch.cuh"

#include <lmkit/kernels/cuda/embedding.hpp>

namespace lmkit::kernels::cuda {

namespace {

__global__ void embedding_kernel(const std::uint16_t* table, const std::int32_t* tokens, const Sampled* drawn, std::int64_t hidden,
                                 std::uint16_t* out) {
  start_dependents();
  wait_for_prerequisites();
  std::int32_t token = tokens[blockIdx.x];
  if (token < 0) token = max(drawn[-1 - token].token, 0);
  const std::int64_t from = token * hidden, to = blockIdx.x * hidden;
  for (std::int64_t c = 8 * threadIdx.x; c < hidden; c += 8 * blockDim.x)
    *reinterpret_cast<uint4*>(out + to + c) = *reinterpret_cast<const uint4*>(table + from + c);
}

}  // namespace

Status embedding(const void* table, const std::int32_t* tokens, const Sampled* drawn, std::int32_t count, std::int64_t hidden, void* out,
                 Stream stream) noexcept {
  if (hidden % 8 != 0) return refuse(stream, "embedding on CUDA takes rows of a multiple of 8 values");
  if (count == 0) return Status::ok;
  return launch_early(stream, embedding_kernel, count, row_threads(hidden), static_cast<const std::uint16_t*>(table), tokens, drawn, hidden,
                      static_cast<std::uint16_t*>(out));
}

bool runs_here() noexcept {
  cudaFuncAttributes attributes;
  const bool runs = cudaFuncGetAttributes(&attributes, embedding_kernel) == cudaSuccess;
  cudaGetLastError();
  return runs;
}

}  // namespace lmkit::kernels::cuda
