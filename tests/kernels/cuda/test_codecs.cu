// SPDX-License-Identifier: Apache-2.0
#include "test_codecs.hpp"

#include <lmkit/kernels/cuda/kv_kernels.cuh>

namespace lmkit::kernels::cuda {

const KvKernels* const test_kernels[7] = {
    &kv_kernels<AffineCodec<4, 128, true>, 128>,        &kv_kernels<AffineCodec<8, 64, false>, 128>,
    &kv_kernels<AffineCodec<4, 32, false>, 64>,         &kv_kernels<SquareRootCodec, 64, __half>,
    &kv_kernels<SquareRootCodec, 128, __nv_bfloat16>,   &kv_kernels<AffineCodec<4, 8, false>, 64>,
    &kv_kernels<SquareRootCodec, 256, __nv_bfloat16>,
};

}  // namespace lmkit::kernels::cuda
