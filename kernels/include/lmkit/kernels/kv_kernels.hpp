// SPDX-License-Identifier: Apache-2.0
//
// The table of a codec's kernels. A file compiled once per instruction set includes this and instantiates:
//     template const KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, MyCodec>() noexcept;
#pragma once

#include <lmkit/kernels/kv_append.hpp>
#include <lmkit/kernels/kv_attend.hpp>

namespace lmkit::kernels {

template <class Isa, class Codec>
const KvKernels& kv_kernels() noexcept {
  using Pages = typename PagesOf<Codec>::type;
  static constexpr KvKernels table{
      .head_bytes = [](int head_dim) noexcept { return Pages::head_bytes(head_dim); },
      .workspace_bytes = [](const KvLayer& layer,
                            const KvLimits& limits) noexcept { return KvAttention<Isa, Pages>::workspace_bytes(layer, limits); },
      .append = [](const KvLayer& layer, const KvAppend& args, Stream stream) noexcept { KvAppending<Isa, Pages>(layer, args).run(stream); },
      .attend = [](const KvLayer& layer, const KvAttend& args,
                   Stream stream) noexcept { KvAttention<Isa, Pages>(layer, args, stream).run(stream); },
  };
  return table;
}

}  // namespace lmkit::kernels
