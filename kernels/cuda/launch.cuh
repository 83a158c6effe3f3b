// SPDX-License-Identifier: Apache-2.0
//
// What the row kernels share: eight 16-bit floats as one load, the block's sum, the outcome of a launch.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/kernels/cuda/launch_config.hpp>
#include <lmkit/kernels/cuda/prim.cuh>

#include <cstdint>

namespace lmkit::kernels::cuda {

struct Eight {
  float at[8];
};

__device__ __forceinline__ Eight load8(const std::uint16_t* p, bool is_bf16) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const float2 a = load2(raw.x, is_bf16), b = load2(raw.y, is_bf16), c = load2(raw.z, is_bf16), d = load2(raw.w, is_bf16);
  return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}

__device__ __forceinline__ void store8(const Eight& x, std::uint16_t* p, bool is_bf16) {
  *reinterpret_cast<uint4*>(p) = make_uint4(store2(x.at[0], x.at[1], is_bf16), store2(x.at[2], x.at[3], is_bf16),
                                            store2(x.at[4], x.at[5], is_bf16), store2(x.at[6], x.at[7], is_bf16));
}

// The sum over a block of up to 1024 threads, in every thread.
__device__ __forceinline__ float sum_over_block(float x) {
  __shared__ float warps[32];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  x = sum_over_columns(sum_over_rows(x));
  if (lane == 0) warps[warp] = x;
  __syncthreads();
  x = lane < (static_cast<int>(blockDim.x) + warp_size - 1) / warp_size ? warps[lane] : 0.f;
  return sum_over_columns(sum_over_rows(x));
}

inline cudaStream_t cuda_stream(const Stream& stream) { return reinterpret_cast<cudaStream_t>(stream.handle); }

// Threads for a row of `cols` values, eight a thread: whole warps, at most 1024.
inline unsigned row_threads(std::int64_t cols) {
  const std::int64_t threads = (cols / 8 + warp_size - 1) / warp_size * warp_size;
  return static_cast<unsigned>(threads < 1024 ? threads : 1024);
}

inline Status refuse(const Stream& stream, const char* reason) noexcept {
  if (stream.host) stream.host->fail(reason);
  return Status::invalid_argument;
}

inline Status launched(const Stream& stream) noexcept {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return Status::ok;
  if (stream.host) stream.host->fail(cudaGetErrorString(error));
  return Status::device_error;
}

// A kernel that begins with start_dependents() and wait_for_prerequisites(): on sm_90 it may be brought to the
// multiprocessors while the launch before it ends.
template <class... Params, class... Args>
Status launch_early(const Stream& stream, void (*kernel)(Params...), std::int64_t blocks, unsigned threads, Args... args) noexcept {
  static const bool overlap = may_overlap(kernel);
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>(blocks)), .block = dim3(threads), .stream = cuda_stream(stream), .overlap = overlap};
  config.launch(kernel, static_cast<Params>(args)...);
  return launched(stream);
}

inline bool is_16_bit(Dtype dtype) noexcept { return dtype == Dtype::f16 || dtype == Dtype::bf16; }

}  // namespace lmkit::kernels::cuda
