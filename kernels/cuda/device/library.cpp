// SPDX-License-Identifier: Apache-2.0
#include "cuda_device.hpp"
#include "runtime.hpp"

#include <lmkit/kernels/cuda/embedding.hpp>
#include <lmkit/kernels/cuda/kv_plain.hpp>
#include <lmkit/kernels/cuda/library.hpp>
#include <lmkit/kernels/cuda/machine_limits.hpp>

namespace lmkit::kernels::cuda {
namespace {

std::string version_of(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

int count_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) throw Error(ErrorKind::device, "this machine has no NVIDIA driver", "a GPU", "--device cpu, or installing the driver");
  if (error == cudaErrorInsufficientDriver) {
    throw Error(ErrorKind::device, "the NVIDIA driver speaks CUDA " + version_of(driver), "CUDA " + version_of(runtime) + " or later",
                "--device cpu, or a newer driver");
  }
  if (error != cudaSuccess || count == 0) {
    throw Error(ErrorKind::device, std::string("no GPU can be used: ") + cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error), {},
                "--device cpu, or a look at nvidia-smi and CUDA_VISIBLE_DEVICES");
  }
  return count;
}

// The caller's thread keeps the GPU it had.
CudaGpu look_at(int gpu) {
  const int count = count_gpus();
  if (gpu < 0 || gpu >= count) throw Error(ErrorKind::device, "GPU " + std::to_string(gpu), "0 to " + std::to_string(count - 1), "one of these");
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, gpu), "asking for the GPU's properties");
  int before = 0;
  require(cudaGetDevice(&before), "asking for the current GPU");
  std::size_t free = 0, total = 0;
  require(cudaSetDevice(gpu), "choosing the GPU");
  const cudaError_t error = cudaMemGetInfo(&free, &total);
  const bool usable = runs_here();
  cudaSetDevice(before);
  require(error, "asking for the GPU's memory");
  return {properties.name, properties.major, properties.minor, static_cast<std::int64_t>(total), static_cast<std::int64_t>(free), usable};
}

std::unique_ptr<Device> open(int gpu, Dtype dtype, Stream threads) {
  const CudaGpu found = look_at(gpu);
  if (!found.usable) {
    throw Error(ErrorKind::device, found.name + " has compute capability " + std::to_string(found.major) + "." + std::to_string(found.minor),
                "one that this build has code for (" LMKIT_CUDA_ARCHS ")", "--device cpu, or a build with this GPU in LMKIT_CUDA_ARCHS");
  }
  return open_gpu(gpu, dtype, threads);
}

double read_bandwidth_of(int gpu, std::int64_t bytes) {
  require(cudaSetDevice(gpu), "choosing the GPU");
  return read_bandwidth(bytes);
}

}  // namespace
}  // namespace lmkit::kernels::cuda

extern "C" __attribute__((visibility("default"))) const lmkit::kernels::cuda::CudaLibrary lmkit_cuda_library{
    LMKIT_BUILD, LMKIT_CUDA_ARCHS, lmkit::kernels::cuda::count_gpus, lmkit::kernels::cuda::look_at, lmkit::kernels::cuda::open, lmkit::kernels::cuda::plain_kv_kernels,
    lmkit::kernels::cuda::read_bandwidth_of};
