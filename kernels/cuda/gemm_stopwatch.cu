// SPDX-License-Identifier: Apache-2.0
#include "gemm_stopwatch.hpp"
#include "launch.cuh"

#include <lmkit/base/error.hpp>

#include <algorithm>
#include <string>

namespace lmkit::kernels::cuda {

namespace {

constexpr std::int64_t read_bytes = 96 << 20;  // more than the L2 of an H200 or an RTX 4090

__global__ void read_kernel(const uint4* data, std::int64_t count, std::uint32_t* sink) {
  start_dependents();
  std::uint32_t bits = 0;
  for (std::int64_t n = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; n < count; n += std::int64_t{gridDim.x} * blockDim.x) {
    const uint4 x = data[n];
    bits |= x.x & x.y & x.z & x.w;
  }
  if (bits == 0x600df00d && count < 0) *sink = bits;  // never; so that the loads stay
}

void require(cudaError_t error) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("timing products of matrices failed: ") + cudaGetErrorString(error));
}

}  // namespace

Stopwatch::Stopwatch(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream)
    : stream_(cuda_stream(stream)),
      weight_bytes_(shape.rows * shape.cols * size_of(shape.dtype)),
      memory_{{workspace, Gemm::workspace_bytes},
              {args.y, args.tokens * shape.width() * size_of(shape.out)},
              {args.x, args.tokens * shape.cols * size_of(shape.dtype)}} {
  require(cudaEventCreate(&begin_));
  require(cudaEventCreate(&end_));
}

Stopwatch::~Stopwatch() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
}

void Stopwatch::read_others() {
  std::int64_t rest = read_bytes;
  for (const auto& [data, bytes] : memory_) {
    const std::int64_t now = std::min(rest, bytes);
    if (now < 16) continue;
    read_kernel<<<264, 1024, 0, stream_>>>(static_cast<const uint4*>(data), now / 16, nullptr);
    require(cudaGetLastError());
    rest -= now;
  }
}

double Stopwatch::time_of(int launches, bool reads, const std::function<Status()>& launch) {
  read_others();
  require(cudaEventRecord(begin_, stream_));
  for (int n = 0; n < launches; ++n) {
    if (launch() != Status::ok) return never;
    if (reads) read_others();
  }
  require(cudaEventRecord(end_, stream_));
  require(cudaEventSynchronize(end_));
  float ms = 0;
  require(cudaEventElapsedTime(&ms, begin_, end_));
  return 1e3 * ms / launches;
}

double Stopwatch::time(std::int64_t tokens, double best, const std::function<Status()>& launch) {
  constexpr std::int64_t many_tokens = 512;  // twice an H200's operations per byte
  const bool reads = weight_bytes_ < read_bytes && tokens < many_tokens;
  if (time_of(1, reads, launch) == never) return never;  // code is loaded
  double fastest = time_of(1, reads, launch);
  const int launches = fastest > 300 ? 2 : 4;
  for (int n = 0; n < 2 && fastest < 1.3 * best; ++n) fastest = std::min(fastest, time_of(launches, reads, launch));
  return fastest;
}

}  // namespace lmkit::kernels::cuda
