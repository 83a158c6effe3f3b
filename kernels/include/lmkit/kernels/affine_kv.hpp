// SPDX-License-Identifier: Apache-2.0
//
// The kernels of AffineCodec for a head_dim known at run time: one scale per token and head where head_dim is one of
// AffineHeadDims, else one per 8 values, which attention then decodes one by one.
#pragma once

#include <lmkit/kernels/affine_codec.hpp>
#include <lmkit/kernels/kv.hpp>

#include <utility>

namespace lmkit::kernels {

using AffineHeadDims = std::integer_sequence<int, 64, 80, 96, 128, 256>;

// Defined below in files compiled once per instruction set, which instantiate:
//     template const KvKernels& lmkit::kernels::affine_kernels<lmkit::kernels::isa::LMKIT_ISA, 4>(int, bool) noexcept;
template <class Isa, int Bits>
const KvKernels& affine_kernels(int head_dim, bool symmetric) noexcept;

template <int Bits>
const KvKernels& affine_kernels_for(int head_dim, bool symmetric, CpuIsa isa = cpu_isa()) noexcept {
  return with_isa(isa, [&]<class Isa>() -> const KvKernels& { return affine_kernels<Isa, Bits>(head_dim, symmetric); });
}

}  // namespace lmkit::kernels

#if defined(LMKIT_ISA)
#include <lmkit/kernels/kv_kernels.hpp>

namespace lmkit::kernels {

template <class Isa, int Bits, bool Symmetric, int... Dim>
const KvKernels& affine_kernels_of(int head_dim, std::integer_sequence<int, Dim...>) noexcept {
  const KvKernels* found = &kv_kernels<Isa, AffineCodec<Bits, 8, Symmetric>>();
  ((head_dim == Dim ? void(found = &kv_kernels<Isa, AffineCodec<Bits, Dim, Symmetric>>()) : void()), ...);
  return *found;
}

template <class Isa, int Bits>
const KvKernels& affine_kernels(int head_dim, bool symmetric) noexcept {
  return symmetric ? affine_kernels_of<Isa, Bits, true>(head_dim, AffineHeadDims{})
                   : affine_kernels_of<Isa, Bits, false>(head_dim, AffineHeadDims{});
}

}  // namespace lmkit::kernels
#endif
