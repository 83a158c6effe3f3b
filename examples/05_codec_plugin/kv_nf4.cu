// SPDX-License-Identifier: Apache-2.0
#include "normal_float4.hpp"

#include <lmkit/kernels/cuda/codec_kv.hpp>

LMKIT_KV_CODEC_CUDA(NormalFloat4);
