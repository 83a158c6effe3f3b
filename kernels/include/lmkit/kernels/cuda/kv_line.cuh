// SPDX-License-Identifier: Apache-2.0
//
// The line of decode attention (kv_split.cuh) on the device: how long each sequence's part is, where on the line a step
// lies, and the loader that copies a warp's steps to its ring of stages some time before they are used.
#pragma once

#include <lmkit/kernels/cuda/kv_split.cuh>
#include <lmkit/kernels/cuda/kv_tile.cuh>
#include <lmkit/kernels/cuda/kv_view.cuh>
#include <lmkit/kernels/cuda/prim.cuh>

namespace lmkit::kernels::cuda {

struct DecodeParams {
  KvView view;
  const std::uint16_t* q;  // (tokens, query_heads, head_dim)
  std::uint16_t* out;
  std::int64_t q_stride, out_stride;
  float scale;     // softmax scale, times log2 e unless soft_cap
  float soft_cap;  // 0: none
  std::int32_t window;
  std::int32_t query_tiles;   // items of one key/value head: 1 or 2
  std::int32_t all_workers;   // warps of the grid
  std::int32_t slot_columns;  // queries a slot has room for
  bool overlap;               // may start while the launch before ends
  std::uint32_t* arrivals;    // (sequences, items, warps of a block), kv_split.cuh
  float* slots;               // (slots, slot_columns, part_row)
};

__device__ __forceinline__ int kv_head_of(const DecodeParams& p, int item) { return item >> (p.query_tiles - 1); }

// Steps of one item of sequence s: those with a visible token, if it has one new token.
__device__ __forceinline__ int first_step(int length, int window, int step_tokens) {
  return window > 0 && length > window ? (length - window) / step_tokens : 0;
}
__device__ __forceinline__ int steps_of(const KvView& view, int s, int window, int step_tokens) {
  const int length = view.kv_lengths[s];
  if (view.new_tokens(s) != 1) return 0;
  return (length + step_tokens - 1) / step_tokens - first_step(length, window, step_tokens);
}

// starts[s] = steps of one item of the sequences before s. All threads of the block; ends with a barrier.
template <int most_warps>
__device__ void scan_steps(const KvView& view, int window, int step_tokens, std::int32_t* starts) {
  __shared__ std::int32_t warp_sums[most_warps];
  const int threads = blockDim.x, lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  std::int32_t total = 0;
  if (threadIdx.x == 0) starts[0] = 0;
  for (int base = 0; base < view.sequences; base += threads) {
    const int s = base + threadIdx.x;
    std::int32_t sum = s < view.sequences ? steps_of(view, s, window, step_tokens) : 0;
    for (int d = 1; d < warp_size; d *= 2) {
      const std::int32_t before = __shfl_up_sync(full_warp, sum, d);
      if (lane >= d) sum += before;
    }
    if (lane == warp_size - 1) warp_sums[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += warp_sums[w];
    if (s < view.sequences) starts[s + 1] = total + sum;
    for (int w = 0; w < threads / warp_size; ++w) total += warp_sums[w];
    __syncthreads();
  }
  __syncthreads();
}

// Where a step of the line is.
struct StepPlace {
  int sequence, item, step, steps;  // step of the item's `steps`
};

// starts: (sequences + 1) in shared memory; the sequence is the last whose line begins at or before `at`.
__device__ __forceinline__ StepPlace locate(const std::int32_t* starts, int sequences, int items, int at) {
  int low = 0, high = sequences;  // starts[low] * items <= at < starts[high] * items
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (starts[middle] * items <= at ? low : high) = middle;
  }
  const int steps = starts[low + 1] - starts[low], rest = at - starts[low] * items;
  return {low, rest / steps, rest % steps, steps};
}

// The queries of an item.
struct ItemQueries {
  int first, count;
  __device__ __forceinline__ static ItemQueries of(const DecodeParams& p, int item, int columns) {
    const int kv_head = kv_head_of(p, item), first = p.view.first_query(kv_head) + (item & (p.query_tiles - 1)) * columns;
    return {first, min(p.view.first_query(kv_head + 1) - first, columns)};
  }
};

// Issues the copies of one step after another, some steps ahead of their use. Steps of one page follow each other in
// memory, so what a step costs beside its copies is a pointer and a count.
template <class Shape>
struct StepLoader {
  const DecodeParams& p;
  const std::int32_t* starts;
  int items, lane;
  int at, end;                           // steps of the line
  int left = 0;                          // of them behind `source`
  const std::byte* source = nullptr;     // this lane's next 16 bytes
  int item_left = 0, page = 0;
  int window_page = 0, page_ids = 0;     // lane l: the id of page window_page + l
  const std::int32_t* table = nullptr;   // of the item's sequence
  int pages = 0;
  std::int64_t head_at = 0;              // bytes from a block to the item's head
  const std::byte* mean = nullptr;       // this lane's 16 bytes of the mean of the page before, if there is one

  // From the page before this one on, whose mean is wanted.
  __device__ __forceinline__ void load_page_ids() {
    window_page = max(page - 1, 0);
    page_ids = window_page + lane < pages ? table[window_page + lane] : 0;
  }
  __device__ __forceinline__ void next_page() {
    const int page_steps = p.view.block_tokens / Shape::step_tokens;
    int skip = 0;  // steps of the page before this one
    if (item_left == 0) {
      const StepPlace place = locate(starts, p.view.sequences, items, at);
      const int length = p.view.kv_lengths[place.sequence];
      const int step = first_step(length, p.window, Shape::step_tokens) + place.step;
      table = p.view.block_tables + place.sequence * p.view.block_table_stride;
      pages = (length + p.view.block_tokens - 1) / p.view.block_tokens;
      head_at = kv_head_of(p, place.item) * p.view.head_bytes;
      item_left = min(place.steps - place.step, end - at);
      page = step / page_steps;
      skip = step % page_steps;
      load_page_ids();
    } else if (++page == window_page + warp_size) {
      load_page_ids();
    }
    const int block = __shfl_sync(full_warp, page_ids, page - window_page);
    source = p.view.pages + block * p.view.block_stride + head_at + skip * Shape::step_bytes + 16 * lane;
    if constexpr (Shape::Stored::may_centre) {
      const int before = __shfl_sync(full_warp, page_ids, max(page - 1, 0) - window_page);
      const bool has_mean = p.view.centred && page > 0 && 16 * lane < Shape::Stored::Mean::copied;
      mean = has_mean ? p.view.pages + before * p.view.block_stride + head_at + p.view.head_bytes - Shape::Stored::mean_bytes + 16 * lane : nullptr;
    }
    left = min(page_steps - skip, item_left);
    item_left -= left;
  }
  // Brings the next step to L2: harmless also while it is being written.
  __device__ __forceinline__ void prefetch() const {
    const std::byte* first = source - 16 * lane;
#pragma unroll
    for (int n = 0; n < Shape::step_bytes; n += 128 * warp_size)
      if (n + 128 * lane < Shape::step_bytes) prefetch_l2(first + n + 128 * lane);
    if (mean && lane % 8 == 0) prefetch_l2(mean);
  }
  // Copies the next step, if there is one, to a stage; always closes a group. The first page is asked for before.
  __device__ __forceinline__ void issue(std::uint32_t stage) {
    if (at < end) {
#pragma unroll
      for (int n = 0; n < Shape::step_bytes; n += 16 * warp_size)
        if (n + 16 * warp_size <= Shape::step_bytes || n + 16 * lane < Shape::step_bytes) copy16_async(stage + n + 16 * lane, source + n);
      if (mean) copy16_async(stage + Shape::step_bytes + 16 * lane, mean);
      source += Shape::step_bytes;
      ++at;
      if (--left == 0 && at < end) next_page();
    }
    commit_copies();
  }
};

}  // namespace lmkit::kernels::cuda
