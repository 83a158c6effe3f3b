// SPDX-License-Identifier: Apache-2.0
//
// The table of a codec's kernels. A file compiled once per instruction set includes this and instantiates:
//     template const KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, MyCodec>() noexcept;
#pragma once

#include <lmkit/kernels/kv_append.hpp>
#include <lmkit/kernels/kv_attend.hpp>

namespace lmkit::kernels {

// Calls body.template operator()<Pages>() with the kind of pages a codec gets for heads of head_dim.
template <class Codec, class Body>
LMKIT_HD auto with_pages(int head_dim, Body&& body) noexcept {
  if constexpr (std::is_same_v<Codec, HalfCodec>) {
    return body.template operator()<HalfPages>();
  } else if constexpr (FoldableKvCodec<Codec>) {
    if (head_dim == Codec::group) return body.template operator()<FoldedPages<Codec>>();
    return body.template operator()<PackedPages<Codec>>();
  } else {
    return body.template operator()<PackedPages<Codec>>();
  }
}

template <class Isa, class Codec>
const KvKernels& kv_kernels() noexcept {
  static constexpr KvKernels table{
      .head_bytes = [](int head_dim) noexcept { return with_pages<Codec>(head_dim, [&]<class Pages>() { return Pages::head_bytes(head_dim); }); },
      .workspace_bytes =
          [](const KvLayer& layer, const KvLimits& limits) noexcept {
            return with_pages<Codec>(layer.head_dim, [&]<class Pages>() { return KvAttention<Isa, typename Pages::Layout>::workspace_bytes(layer, limits); });
          },
      .append =
          [](const KvLayer& layer, const KvAppend& args, Stream stream) noexcept {
            with_pages<Codec>(layer.head_dim, [&]<class Pages>() {
              KvAppending<Isa>(layer, args, Pages::head_bytes(layer.head_dim), &Pages::template store<Isa>).run(stream);
            });
          },
      .attend =
          [](const KvLayer& layer, const KvAttend& args, Stream stream) noexcept {
            with_pages<Codec>(layer.head_dim, [&]<class Pages>() { KvAttention<Isa, typename Pages::Layout>(layer, args, stream).run(stream); });
          },
  };
  return table;
}

}  // namespace lmkit::kernels
