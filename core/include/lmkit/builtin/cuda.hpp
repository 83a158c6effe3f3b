// SPDX-License-Identifier: Apache-2.0
//
// GPUs through lmkit's own GPU half, a library that is loaded when it is first asked for:
// $LMKIT_CUDA_LIBRARY, or <program>/../lib/lmkit/lmkit-cuda.so.
#pragma once

#include <lmkit/kernels/cuda/library.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/model/model_file.hpp>

namespace lmkit {

// Throws Error(device) when it is not there, cannot be loaded or belongs to another build.
const kernels::cuda::CudaLibrary& cuda_library();

// Whether the first GPU is there and this build can use it.
bool has_gpu() noexcept;

// The type that a model is run in on a GPU: bf16 if its weights are, else f16, which holds quantised weights more precisely.
Dtype gpu_dtype(const ModelFile& model);

// Rank r on GPU r.
kernels::OpenDevice open_gpus(Dtype dtype);

}  // namespace lmkit
