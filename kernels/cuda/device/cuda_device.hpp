// SPDX-License-Identifier: Apache-2.0
//
// A GPU as a Device. Weights and activations are f16 or bf16; weights of other formats are expanded when they are loaded.
#pragma once

#include <lmkit/kernels/device.hpp>

namespace lmkit::kernels::cuda {

// gpu: as CUDA numbers them. Throws Error(device).
std::unique_ptr<Device> open_gpu(int gpu, Dtype dtype, Stream threads);

}  // namespace lmkit::kernels::cuda
