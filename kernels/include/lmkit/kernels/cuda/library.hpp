// SPDX-License-Identifier: Apache-2.0
//
// CudaLibrary: lmkit's own GPU half, a shared object of the same build that is loaded when a GPU is asked for, so that the
// program starts where there is neither driver nor toolkit. It exports one symbol, lmkit_cuda_library.
#pragma once

#include <lmkit/kernels/cuda/cuda_kv.hpp>
#include <lmkit/kernels/device.hpp>

#include <memory>
#include <span>
#include <string>

namespace lmkit::kernels::cuda {

struct CudaGpu {
  std::string name;     // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  std::int64_t memory = 0, free = 0;  // bytes
  bool usable = false;  // the build has code for it
};

struct CudaLibrary {
  const char* build;  // of the program it belongs to
  const char* archs;  // it has code for: "80 90a"
  // How many there are. Throws Error(device) where there is no driver or no GPU.
  int (*count)();
  // One of them, which is opened for the question, and no other. Throws Error(device) also where it refuses.
  CudaGpu (*gpu)(int number);
  // dtype: f16 or bf16. Throws Error(device).
  std::unique_ptr<Device> (*open)(int gpu, Dtype dtype, Stream threads);
  // The KV cache in the activations' own type.
  std::span<const KvKernels* const> (*plain_kv)() noexcept;
  // Bytes per second; 0 if there is no room for so many bytes.
  double (*read_bandwidth)(int gpu, std::int64_t bytes);
};

}  // namespace lmkit::kernels::cuda
