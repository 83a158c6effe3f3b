// SPDX-License-Identifier: Apache-2.0
//
// A launch with what <<<…>>> cannot say, both of sm_90: overlap with the launch before, and clusters.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace lmkit::kernels::cuda {

// Whether a kernel can wait for the launch before it: what was compiled for less than sm_90 has no way to.
template <class... Params>
bool may_overlap(void (*kernel)(Params...)) noexcept {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion >= 90;
}

struct LaunchConfig {
  dim3 grid, block;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;
  bool overlap = false;       // may begin while the launch before ends: the kernel has start_dependents() and wait_for_prerequisites()
  unsigned cluster_blocks = 0;  // 0: no clusters

  // Passes on what the runtime needs: call(const cudaLaunchConfig_t&).
  template <class Call>
  auto with(Call&& call) const noexcept {
    cudaLaunchAttribute attributes[2]{};
    cudaLaunchConfig_t config{.gridDim = grid, .blockDim = block, .dynamicSmemBytes = shared, .stream = stream, .attrs = attributes, .numAttrs = 0};
    if (overlap) {
      attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster_blocks > 0) {
      attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[config.numAttrs++].val.clusterDim = {cluster_blocks, 1, 1};
    }
    return call(config);
  }

  template <class... Params, class... Args>
  cudaError_t launch(void (*kernel)(Params...), Args&&... args) const noexcept {
    return with([&](const cudaLaunchConfig_t& config) { return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...); });
  }

  // Clusters of the kernel that run at a time.
  template <class... Params>
  cudaError_t active_clusters(int& count, void (*kernel)(Params...)) const noexcept {
    return with([&](const cudaLaunchConfig_t& config) { return cudaOccupancyMaxActiveClusters(&count, kernel, &config); });
  }
};

}  // namespace lmkit::kernels::cuda
