// SPDX-License-Identifier: Apache-2.0
//
// How the blocks of kv_prefill_wgmma.cuh share the work, and how the warpgroups of a block pass keys and values on.
#pragma once

#include <lmkit/kernels/cuda/kv_prefill.cuh>
#include <lmkit/kernels/cuda/wgmma.cuh>

namespace lmkit::kernels::cuda {

// A piece of work: some query tokens of one sequence and head.
struct PrefillChunk {
  int head, kv_head, sequence, tokens, first_row;
  int length, position;  // of the sequence; of the first row
  int begin, steps;      // of tokens that some row sees
  int oldest;            // of these tokens
};

// Which chunks are a block's. Chunks are numbered by sequence, row block with the longest first, and head; sequences with one
// new token have none, they are decode's. Blocks take numbers in turn, every other time in reverse, so that of lengths that fall
// slowly each gets as much. All lanes of a warp call.
class PrefillChunks {
 public:
  __device__ __forceinline__ bool next(const PrefillParams& p, int rows, int step_tokens, PrefillChunk& c) {
    const KvView& view = p.view;
    const int lane = threadIdx.x % warp_size, block = round_ % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const int number = round_++ * gridDim.x + block, wanted = number / view.query_heads;
    for (; first_ < view.sequences; first_ += warp_size) {  // 32 sequences at a time
      const int tokens = first_ + lane < view.sequences ? view.new_tokens(first_ + lane) : 0;
      int end = tokens > 1 ? (tokens + rows - 1) / rows : 0;  // of this sequence's row blocks
      for (int n = 1; n < warp_size; n *= 2) {
        const int other = __shfl_up_sync(full_warp, end, n);
        if (lane >= n) end += other;
      }
      end += before_;
      const unsigned later = __ballot_sync(full_warp, end > wanted);
      if (later == 0) {
        before_ = __shfl_sync(full_warp, end, warp_size - 1);
        continue;
      }
      const int owner = __ffs(later) - 1;
      c.head = number % view.query_heads, c.kv_head = (c.head + view.group_offset) / view.group_size;
      c.sequence = first_ + owner, c.tokens = __shfl_sync(full_warp, tokens, owner);
      c.first_row = (__shfl_sync(full_warp, end, owner) - 1 - wanted) * rows;
      c.length = view.kv_lengths[c.sequence], c.position = c.length - c.tokens + c.first_row;
      c.oldest = p.window > 0 ? max(0, c.position - p.window + 1) : 0;
      c.begin = c.oldest / step_tokens;
      c.steps = (min(c.length, c.position + rows) + step_tokens - 1) / step_tokens;
      return true;
    }
    return false;
  }

 private:
  int round_ = 0, first_ = 0, before_ = 0;  // row blocks of sequences before `first_`
};

// Places in shared memory for two steps' keys and values, used in turn. Use n of slot n % slots is over when all warps that
// attend have arrived at its `empty`; then the feeders fill it for use n + slots and arrive at `full`.
struct SlotRing {
  static constexpr int slots = 4;
  std::uint32_t full, empty;  // (slots) barriers each

  __device__ __forceinline__ std::uint32_t full_of(int n) const { return full + n % slots * 8; }
  __device__ __forceinline__ std::uint32_t empty_of(int n) const { return empty + n % slots * 8; }
  __device__ __forceinline__ void wait_full(int n) const { barrier_wait(full_of(n), n / slots); }
  __device__ __forceinline__ bool is_empty(int n) const { return n < slots || barrier_test(empty_of(n), n / slots - 1); }
  __device__ __forceinline__ void wait_empty(int n) const {
    if (n >= slots) barrier_wait(empty_of(n), n / slots - 1);
  }
};

}  // namespace lmkit::kernels::cuda
