// SPDX-License-Identifier: Apache-2.0
//
// CUDA's status codes as ours.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cuda_runtime_api.h>

#include <string>

namespace lmkit::kernels::cuda {

// At load time.
inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string(what) + " failed: " + cudaGetErrorString(error));
}

// In a step.
inline Status outcome(cudaError_t error, const Stream& stream) noexcept {
  if (error == cudaSuccess) return Status::ok;
  if (stream.host) stream.host->fail(cudaGetErrorString(error));
  return Status::device_error;
}

}  // namespace lmkit::kernels::cuda
