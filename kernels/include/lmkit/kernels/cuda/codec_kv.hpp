// SPDX-License-Identifier: Apache-2.0
//
// The CUDA half of a codec of one's own. In a .cu file given to lmkit_add_plugin as CUDA:
//
//     #include "my_codec.hpp"
//     #include <lmkit/kernels/cuda/codec_kv.hpp>
//     LMKIT_KV_CODEC_CUDA(MyCodec);
//
// makes its kernels for those head dims of 64, 80, 96, 128 and 256 that the group divides. A FoldableKvCodec whose group is
// a multiple of 16 gets the kernels that multiply codes, any other codec those that decode to fp16 or bf16 on the way.
#pragma once

#include <lmkit/concepts/kv_codec.hpp>
#include <lmkit/kernels/cuda/cuda_kv.hpp>

#include <span>

namespace lmkit::kernels::cuda {

template <KvCodec Codec>
std::span<const KvKernels* const> codec_kv_kernels() noexcept;

template <KvCodec Codec>
class CodecCudaKv : public CudaKv {
 public:
  // Throws Error if the shape or the device is not supported.
  explicit CodecCudaKv(const KvShape& shape) : CudaKv(shape, codec_kv_kernels<Codec>()) {}
};

}  // namespace lmkit::kernels::cuda

#if defined(__CUDACC__)
#include <lmkit/kernels/cuda/kv_kernels.cuh>

#include <array>
#include <utility>

namespace lmkit::kernels::cuda {

// One table a head_dim for a folded codec, one for each activation type otherwise.
template <class Codec, int... head_dim>
constexpr auto codec_tables(std::integer_sequence<int, head_dim...>) noexcept {
  constexpr int of_each = FragmentFoldable<Codec> ? 1 : 2;
  std::array<const KvKernels*, of_each*(0 + ... + (head_dim % Codec::group == 0))> tables{};
  std::size_t next = 0;
  const auto add = [&]<int dim>() {
    if constexpr (dim % Codec::group == 0) {
      tables[next++] = &kv_kernels<Codec, dim, __half>;
      if constexpr (of_each == 2) tables[next++] = &kv_kernels<Codec, dim, __nv_bfloat16>;
    }
  };
  (add.template operator()<head_dim>(), ...);
  return tables;
}

template <KvCodec Codec>
std::span<const KvKernels* const> codec_kv_kernels() noexcept {
  static constexpr auto tables = codec_tables<Codec>(std::integer_sequence<int, 64, 80, 96, 128, 256>{});
  return tables;
}

}  // namespace lmkit::kernels::cuda

#define LMKIT_KV_CODEC_CUDA(Codec) \
  template std::span<const lmkit::kernels::cuda::KvKernels* const> lmkit::kernels::cuda::codec_kv_kernels<Codec>() noexcept
#endif
