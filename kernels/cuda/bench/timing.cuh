// SPDX-License-Identifier: Apache-2.0
//
// What the programs that measure kernels share: random data, the median of graph replays, and the read bandwidth they are
// held against.
#pragma once

#include "device.hpp"

#include <lmkit/kernels/cuda/prim.cuh>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace lmkit::kernels::cuda {

static __global__ void read_kernel(const uint4* data, std::size_t count, std::uint32_t* sink) {
  std::uint32_t sum = 0;
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  std::size_t n = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  for (; n + 7 * stride < count; n += 8 * stride) {
    uint4 x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = data[n + i * stride];
#pragma unroll
    for (int i = 0; i < 8; ++i) sum ^= x[i].x ^ x[i].y ^ x[i].z ^ x[i].w;
  }
  for (; n < count; n += stride) sum ^= data[n].x;
  if (sum == 0x12345678u) *sink = sum;
}

// Normally distributed values, as 16-bit floats.
static __global__ void random_kernel(std::uint16_t* out, std::size_t count, std::uint32_t seed, float spread, bool is_bf16) {
  for (std::size_t n = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; n < count; n += std::size_t{gridDim.x} * blockDim.x) {
    std::uint64_t z = (n + 1) * 0x9e3779b97f4a7c15ull + seed * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const float u = (static_cast<float>(z >> 40) + 0.5f) * 0x1p-24f, w = static_cast<float>(z & 0xffffff) * 0x1p-24f;
    out[n] = static_cast<std::uint16_t>(store2(spread * sqrtf(-2.f * logf(u)) * cospif(2.f * w), 0.f, is_bf16));
  }
}

struct Timer {
  explicit Timer(const DeviceStream& stream) : stream(stream) {
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
  }
  // Median microseconds of one of the `launches` in a graph.
  double median(int launches, const std::function<void(int)>& launch, int replays = 21) {
    cudaGraphExec_t graph = stream.capture([&] {
      for (int n = 0; n < launches; ++n) launch(n);
    });
    std::vector<double> times;
    for (int n = 0; n < replays + 3; ++n) {
      check(cudaEventRecord(begin, stream));
      check(cudaGraphLaunch(graph, stream));
      check(cudaEventRecord(end, stream));
      check(cudaEventSynchronize(end));
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin, end));
      if (n >= 3) times.push_back(ms * 1e3 / launches);
    }
    check(cudaGraphExecDestroy(graph));
    std::ranges::nth_element(times, times.begin() + times.size() / 2);
    return times[times.size() / 2];
  }
  const DeviceStream& stream;
  cudaEvent_t begin, end;
};

// GB/s of reading 4 GiB, with the best of several grids.
inline double measure_read(Timer& timer) {
  const std::size_t bytes = std::size_t{4} << 30;
  DeviceArray<std::byte> data(bytes);
  random_kernel<<<1024, 256, 0, timer.stream>>>(reinterpret_cast<std::uint16_t*>(data.data()), bytes / 2, 1, 1.f, true);
  DeviceArray<std::uint32_t> sink(1);
  double best = 0;
  for (const int blocks : {132 * 4, 132 * 8, 132 * 16, 132 * 64}) {
    const double us =
        timer.median(2, [&](int) { read_kernel<<<blocks, 256, 0, timer.stream>>>(reinterpret_cast<const uint4*>(data.data()), bytes / 16, sink.data()); });
    best = std::max(best, bytes / us * 1e-3);
  }
  return best;
}

}  // namespace lmkit::kernels::cuda
