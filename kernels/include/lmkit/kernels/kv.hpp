// SPDX-License-Identifier: Apache-2.0
//
// kv: the two launches of a KV cache, append and attend, on the CPU. abi/kv.h says what they compute.
//
// A codec's kernels are templates; files compiled once per instruction set instantiate them, and the rest of a program
// or plugin reaches them through one KvKernels table per codec:
//
//     kv_append.hpp  RoPE, rotation, encode            kv_pages.hpp   what a page holds, per kind of codec
//     kv_attend.hpp  attention over pages              kv_plan.hpp    how attention is cut into tasks
//     kv_centre.hpp  keys as differences from a mean
//     cpu_kv.hpp     a KvBackend around a table
//     kv_kernels.hpp the table of a codec: include it in a file compiled per instruction set, and instantiate
//
//     template const KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, MyCodec>() noexcept;
//
// Promise: the numbers do not depend on the number of workers, on the other sequences of the batch, nor on how a prompt
// was cut into chunks. Slots that hold no token may contain anything, NaN included.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <cstdint>

namespace lmkit::kernels {

inline constexpr int kv_block_tokens = 64;
inline constexpr int kv_max_head_dim = 512;

// The codec of KvF16. Values beyond half precision's range are clamped to it.
struct HalfCodec {};

// Keys and values with FoldableKvCodecs of their own, of the same bits and group. Centred keys are stored as differences
// from the mean key of the block before (kv_centre.hpp).
template <class Keys, class Values, bool Centred>
struct KvCodecPair {};

// A layer as the kernels see it. Plain.
struct KvLayer {
  std::int32_t query_heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t group_size = 1;
  std::int32_t group_offset = 0;
  std::int32_t head_dim = 0;
  bool hadamard = false;  // rotate q, k and v before they are stored, and attend's result back

  // Query heads [first_query(j), first_query(j + 1)) read key/value head j.
  constexpr std::int32_t first_query(std::int32_t kv_head) const noexcept {
    const std::int32_t first = kv_head * group_size - group_offset;
    return first < 0 ? 0 : first > query_heads ? query_heads : first;
  }
};

struct KvKernels {
  std::int64_t (*head_bytes)(int head_dim) noexcept;  // one key/value head's part of a block, a multiple of 64
  std::int64_t (*workspace_bytes)(const KvLayer& layer, const KvLimits& limits) noexcept;
  void (*append)(const KvLayer& layer, const KvAppend& args, Stream stream) noexcept;
  void (*attend)(const KvLayer& layer, const KvAttend& args, Stream stream) noexcept;
};

// Defined in kv_kernels.hpp.
template <class Isa, class Codec>
const KvKernels& kv_kernels() noexcept;

// Calls body.template operator()<Isa>() for an instruction set.
template <class Body>
decltype(auto) with_isa(CpuIsa isa, Body&& body) noexcept {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return body.template operator()<isa::avx512>();
  if (isa == CpuIsa::avx2) return body.template operator()<isa::avx2>();
#endif
  static_cast<void>(isa);
  return body.template operator()<isa::baseline>();
}

// The table for the machine this runs on, or for a given instruction set.
template <class Codec>
const KvKernels& kv_kernels_for(CpuIsa isa = cpu_isa()) noexcept {
  return with_isa(isa, []<class Isa>() -> const KvKernels& { return kv_kernels<Isa, Codec>(); });
}

}  // namespace lmkit::kernels
