// SPDX-License-Identifier: Apache-2.0
//
// The GPU kernels of AffineCodec, one scale per token and head, for head dims 64, 80, 96, 128 and 256. In one .cu file:
//
//     #include <lmkit/kernels/cuda/affine_kv.hpp>
//     template std::span<const lmkit::kernels::cuda::KvKernels* const> lmkit::kernels::cuda::affine_kv_kernels<4, false>() noexcept;
#pragma once

#include <lmkit/kernels/affine_codec.hpp>
#include <lmkit/kernels/cuda/cuda_kv.hpp>

#include <span>

namespace lmkit::kernels::cuda {

template <int bits, bool symmetric>
std::span<const KvKernels* const> affine_kv_kernels() noexcept;

}  // namespace lmkit::kernels::cuda

#if defined(__CUDACC__)
#include <lmkit/kernels/cuda/kv_kernels.cuh>

namespace lmkit::kernels::cuda {

template <int bits, bool symmetric>
std::span<const KvKernels* const> affine_kv_kernels() noexcept {
  static constexpr const KvKernels* tables[] = {
      &kv_kernels<AffineCodec<bits, 64, symmetric>, 64>,   &kv_kernels<AffineCodec<bits, 80, symmetric>, 80>,
      &kv_kernels<AffineCodec<bits, 96, symmetric>, 96>,   &kv_kernels<AffineCodec<bits, 128, symmetric>, 128>,
      &kv_kernels<AffineCodec<bits, 256, symmetric>, 256>};
  return tables;
}

// Instantiated where a .cu file says so, not wherever it is called.
extern template std::span<const KvKernels* const> affine_kv_kernels<4, false>() noexcept;
extern template std::span<const KvKernels* const> affine_kv_kernels<8, false>() noexcept;
extern template std::span<const KvKernels* const> affine_kv_kernels<8, true>() noexcept;

}  // namespace lmkit::kernels::cuda
#endif
