// SPDX-License-Identifier: Apache-2.0
//
// The table of a codec's kernels. A file compiled once per instruction set includes this and instantiates:
//     template const KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, MyCodec>() noexcept;
#pragma once

#include <lmkit/kernels/kv_append.hpp>
#include <lmkit/kernels/kv_attend.hpp>

namespace lmkit::kernels {
namespace {

// The kinds of pages a codec gets: ForGroup for heads as long as its group, Otherwise for others.
template <class Codec>
struct PagesOf {
  static constexpr int group = 0;
  using Otherwise = PackedPages<Codec>;
};

template <>
struct PagesOf<HalfCodec> {
  static constexpr int group = 0;
  using Otherwise = HalfPages;
};

template <FoldableKvCodec Codec>
struct PagesOf<Codec> {
  static constexpr int group = Codec::group;
  using ForGroup = FoldedPages<Codec, Codec, false>;
  using Otherwise = PackedPages<Codec>;
};

template <FoldableKvCodec Keys, FoldableKvCodec Values, bool Centred>
struct PagesOf<KvCodecPair<Keys, Values, Centred>> {
  static constexpr int group = Keys::group;
  using ForGroup = FoldedPages<Keys, Values, Centred>;
  using Otherwise = PackedPages<Keys>;
};

// Calls body.template operator()<Pages>() with a codec's pages for heads of head_dim.
template <class Codec, class Body>
LMKIT_HD auto with_pages(int head_dim, Body&& body) noexcept {
  using Pages = PagesOf<Codec>;
  if constexpr (Pages::group > 0)
    if (head_dim == Pages::group) return body.template operator()<typename Pages::ForGroup>();
  return body.template operator()<typename Pages::Otherwise>();
}

}  // namespace

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
              KvAppending<Isa>(layer, args, KvPageWriter::of<Isa, Pages>(layer.head_dim)).run(stream);
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
