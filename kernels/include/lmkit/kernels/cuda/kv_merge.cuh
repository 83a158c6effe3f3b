// SPDX-License-Identifier: Apache-2.0
//
// The end of decode attention: what several warps have had of an item is added up in order, rotated values are turned back, and the
// result is stored. A warp does this for one query at a time; a part is read once, 4 (head_dim + 4) bytes a query.
#pragma once

#include <lmkit/kernels/cuda/kv_line.cuh>
#include <lmkit/kernels/cuda/warp_row.cuh>

namespace lmkit::kernels::cuda {

// One query's row of an item.
template <int head_dim>
struct MergedRow {
  using Row = WarpRow<head_dim>;
  Row out;
  float maximum, sum;

  // sum over n of 2^(maximum_n - overall) out_n, and of the same sums, of at most `most` rows part(n) in order.
  template <int most, class Part>
  __device__ __forceinline__ void add_up(int parts, const Part& part, int lane) {
    Row x[most];
    float2 end[most];  // maximum, sum
#pragma unroll
    for (int n = 0; n < most; ++n) {
      const float* row = part(min(n, parts - 1));
      x[n].load(row, lane);
      end[n] = *reinterpret_cast<const float2*>(row + head_dim);
      if (n >= parts) end[n] = make_float2(-INFINITY, 0.f);
    }
    maximum = end[0].x;
#pragma unroll
    for (int n = 1; n < most; ++n) maximum = fmaxf(maximum, end[n].x);
    clear();
#pragma unroll
    for (int n = 0; n < most; ++n) {
      const float weight = exp2_approx(end[n].x - maximum);
      sum += weight * end[n].y;
      add(weight, x[n]);
    }
  }

  // The same of any number of rows, written by blocks of this launch.
  template <class Part>
  __device__ __forceinline__ void add_up_far(int parts, const Part& part, int lane) {
    constexpr int batch = 16 / Row::fours;  // loads of a lane that are under way at once
    maximum = -INFINITY;
    clear();
#pragma unroll 1
    for (int base = 0; base < parts; base += batch) {
      const int count = min(batch, parts - base);
      Row x[batch];
#pragma unroll
      for (int n = 0; n < batch; ++n) {
        const float* row = part(base + min(n, count - 1));
        Row::each_four(lane, [&](int d, int four) { x[n].at[d] = __ldcg(reinterpret_cast<const float4*>(row) + four); });
      }
      // lane n, and every batch-th lane from it on: of row n
      float2 mine = __ldcg(reinterpret_cast<const float2*>(part(base + min(lane % batch, count - 1)) + head_dim));
      if (lane % batch >= count) mine = make_float2(-INFINITY, 0.f);
      float larger = mine.x;
#pragma unroll
      for (int d = 1; d < batch; d *= 2) larger = fmaxf(larger, __shfl_xor_sync(full_warp, larger, d));
      larger = fmaxf(larger, maximum);
      const float shrink = exp2_approx(maximum - larger), factor = exp2_approx(mine.x - larger);
      maximum = larger;
      float total = factor * mine.y;
#pragma unroll
      for (int d = 1; d < batch; d *= 2) total += __shfl_xor_sync(full_warp, total, d);
      sum = sum * shrink + total;
      scale(shrink);
#pragma unroll
      for (int n = 0; n < batch; ++n) add(__shfl_sync(full_warp, factor, n), x[n]);
    }
  }

  // As a part of a longer item.
  __device__ __forceinline__ void write(float* row, int lane) const {
    out.store(row, lane);
    if (lane == 0) *reinterpret_cast<float2*>(row + head_dim) = make_float2(maximum, sum);
  }

  // As a head of the result.
  __device__ __forceinline__ void store(const KvView& view, std::uint16_t* head, int lane) {
    scale(1.f / sum);
    if (view.hadamard) out.hadamard(lane);
    out.store(head, view.is_bf16, lane);
  }

 private:
  __device__ __forceinline__ void clear() {
    sum = 0.f;
#pragma unroll
    for (float4& x : out.at) x = make_float4(0.f, 0.f, 0.f, 0.f);
  }
  __device__ __forceinline__ void scale(float by) {
#pragma unroll
    for (float4& x : out.at) x.x *= by, x.y *= by, x.z *= by, x.w *= by;
  }
  __device__ __forceinline__ void add(float weight, const Row& more) {
#pragma unroll
    for (int n = 0; n < Row::fours; ++n) {
      out.at[n].x += weight * more.at[n].x, out.at[n].y += weight * more.at[n].y;
      out.at[n].z += weight * more.at[n].z, out.at[n].w += weight * more.at[n].w;
    }
  }
};

// What a block has of an item that several warps have parts of.
struct alignas(16) BlockPart {
  int token;                 // whose queries they are; -1: there is no such item
  int first_query, queries;
  int counter;               // the item's first
  int first, others;         // block that has a part of it, and how many more
  std::int16_t parts;        // of this warp and those behind it in the block
  bool last_is_first;        // the last of them is its warp's first item; others are their warps' last
  bool begins, whole;        // the item begins in this block; it ends here too
};

// Finds out what a warp's first item (lane 0) and its last (lane 1) are to the block. edge: where the stretch of the block's lane-th warp begins
template <class Shape>
__device__ __forceinline__ BlockPart block_part(const DecodeParams& p, const KvSplit& split, const std::int32_t* starts, int edge, int items, int lane,
                                                int warp, int warps) {
  const auto edge_of = [&](int w) { return __shfl_sync(full_warp, edge, w); };
  const int begin = edge_of(warp), end = edge_of(warp + 1), at = lane % 2 ? end - 1 : begin;
  BlockPart part{};
  part.token = -1;
  if (begin >= end) return part;
  const StepPlace place = locate(starts, p.view.sequences, items, at);
  const int item_begin = at - place.step, item_end = item_begin + place.steps;
  const int worker = split.worker_of(lane / 2 % 2 ? item_end - 1 : item_begin);  // lanes 2 and 3: the last one of the item
  const int last_worker = __shfl_sync(full_warp, worker, lane % 2 + 2), first_here = blockIdx.x * warps;
  const int last = min(last_worker - first_here, warps - 1);
  // the first one counts if it ends within the stretch; what a warp before this one has begun is that warp's
  const bool counts = lane % 2 ? item_begin < begin || item_end > end : item_begin < begin && item_end < end;
  if (counts && (item_begin >= begin || warp == 0)) part.token = p.view.query_starts[place.sequence];
  const ItemQueries queries = ItemQueries::of(p, place.item, Shape::columns);
  part.first_query = queries.first, part.queries = queries.count;
  part.counter = (place.sequence * items + place.item) * warps;
  part.first = worker / warps;
  part.others = last_worker / warps - part.first;
  part.parts = static_cast<std::int16_t>(last - warp + 1);
  part.last_is_first = edge_of(last + 1) > item_end;
  part.begins = item_begin >= edge_of(0);
  part.whole = edge_of(warps) >= item_end && part.begins;
  return part;
}

// Adds up the parts of items that several warps have had. All warps of the block; warp w takes every warps-th query from w on.
// ends: the first item of the block's first warp, then every warp's last. Parts lie where the warps' stages were.
template <class Shape, int head_dim>
__device__ __forceinline__ void end_items(const DecodeParams& p, const BlockPart* ends, std::byte* shared, int lane, int warp, int warps) {
  constexpr int row_floats = part_row(head_dim);
  const PartialSlots slots{p.all_workers, warps};
  const auto slot = [&](int block, bool begins, int query) {
    return p.slots + (slots.of_block(block, begins) * p.slot_columns + query) * row_floats;
  };
  const auto head = [&](const BlockPart& part, int query) { return p.out + part.token * p.out_stride + (part.first_query + query) * head_dim; };

  int before = -1, beyond = -1;  // items that other blocks have parts of
#pragma unroll 1
  for (int n = 0; n <= warps; ++n) {
    const BlockPart part = ends[n];
    if (part.token < 0) continue;
    if (!part.whole) (part.begins ? beyond : before) = n;
    const std::byte* parts = shared + max(n - 1, 0) * Shape::warp_bytes;
#pragma unroll 1
    for (int query = warp; query < part.queries; query += warps) {
      const float* rows = reinterpret_cast<const float*>(parts) + query * row_floats;
      MergedRow<head_dim> row;
      row.template add_up<Shape::most_warps>(part.parts, [&](int m) {
        return rows + m * (Shape::warp_bytes / 4) + (part.last_is_first && m == part.parts - 1 ? Shape::columns * row_floats : 0);
      }, lane);
      if (part.whole) row.store(p.view, head(part, query), lane);
      else row.write(slot(blockIdx.x, part.begins, query), lane);
    }
  }
  if (before < 0 && beyond < 0) return;

  __syncwarp();
  const int mine = lane == 0 ? before : beyond;
  std::uint32_t* counter = nullptr;
  std::uint32_t arrived = 0;
  if (lane < 2 && mine >= 0 && warp < ends[mine].queries) {
    counter = p.arrivals + ends[mine].counter + warp;
    arrived = arrive(counter);
  }
#pragma unroll 1
  for (int n = 0; n < 2; ++n) {
    if ((n == 0 ? before : beyond) < 0) continue;
    const BlockPart part = ends[n == 0 ? before : beyond];
    if (__shfl_sync(full_warp, arrived, n) != part.others) continue;
    __syncwarp();
    if (lane == n) *counter = 0;
#pragma unroll 1
    for (int query = warp; query < part.queries; query += warps) {
      const float *first = slot(part.first, true, query), *rows = slot(part.first, false, query);
      const int stride = 2 * p.slot_columns * row_floats;
      MergedRow<head_dim> row;
      row.add_up_far(part.others + 1, [&](int m) { return m == 0 ? first : rows + m * stride; }, lane);
      row.store(p.view, head(part, query), lane);
    }
  }
}

}  // namespace lmkit::kernels::cuda
