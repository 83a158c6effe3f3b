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

// What is chosen at compile time; a symmetric codec has no zero point.
template <int Bits, bool SymmetricKeys, bool SymmetricValues, bool Centred>
struct AffineKv {};

// Defined below in files compiled once per instruction set, which instantiate:
//     template const KvKernels& lmkit::kernels::affine_kernels<lmkit::kernels::isa::LMKIT_ISA, MyAffineKv>(int) noexcept;
template <class Isa, class Kv>
const KvKernels& affine_kernels(int head_dim) noexcept;

template <class Kv>
const KvKernels& affine_kernels_for(int head_dim, CpuIsa isa = cpu_isa()) noexcept {
  return with_isa(isa, [&]<class Isa>() -> const KvKernels& { return affine_kernels<Isa, Kv>(head_dim); });
}

}  // namespace lmkit::kernels

#if defined(LMKIT_ISA)
#include <lmkit/kernels/kv_kernels.hpp>

namespace lmkit::kernels {

template <class Isa, int Bits, bool Keys, bool Values, bool Centred, int... Dim>
const KvKernels& affine_kernels_of(AffineKv<Bits, Keys, Values, Centred>, int head_dim, std::integer_sequence<int, Dim...>) noexcept {
  const KvKernels* found = &kv_kernels<Isa, AffineCodec<Bits, 8, Keys>>();
  ((head_dim == Dim
        ? void(found = &kv_kernels<Isa, KvCodecPair<AffineCodec<Bits, Dim, Keys>, AffineCodec<Bits, Dim, Values>, Centred>>())
        : void()),
   ...);
  return *found;
}

template <class Isa, class Kv>
const KvKernels& affine_kernels(int head_dim) noexcept {
  return affine_kernels_of<Isa>(Kv{}, head_dim, AffineHeadDims{});
}

}  // namespace lmkit::kernels
#endif
