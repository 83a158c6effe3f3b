// SPDX-License-Identifier: Apache-2.0
//
// The second launch of decode attention: adds up the parts of an item in order, and turns rotated values back. Reads each
// part once, 4 (head_dim + 2) bytes a query head.
#pragma once

#include <lmkit/kernels/cuda/hadamard.cuh>
#include <lmkit/kernels/cuda/kv_line.cuh>

namespace lmkit::kernels::cuda {

inline constexpr int most_merge_warps = 16;

// One block a (query head, sequence): out = sum over parts of 2^(maximum - overall) out / sum of the same sums.
// Threads: (32, warps); a warp takes a run of the parts. Dynamic shared memory: (warps, head_dim + 2) floats.
template <int head_dim>
__global__ void __launch_bounds__(warp_size* most_merge_warps) merge_kernel(const DecodeParams p, const int columns) {
  extern __shared__ float rows[];
  const KvView& view = p.view;
  const int head = blockIdx.x, s = blockIdx.y, lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
  const int items = view.kv_heads * p.query_tiles;
  const int kv_head = (head + view.group_offset) / view.group_size, query = head - view.first_query(kv_head);
  const int item = kv_head * p.query_tiles + query / columns;
  wait_for_prerequisites();
  start_dependents();
  const int begin = p.step_starts[s], steps = p.step_starts[s + 1] - begin;
  if (steps == 0) return;
  const KvSplit split = KvSplit::of(p.all_workers, p.step_starts[view.sequences] * items);
  const int at = begin * items + item * steps;
  const int first = split.worker_of(at), last = split.worker_of(at + steps - 1);
  const auto part = [&](int worker) {
    const std::int64_t slot = first == last ? PartialSlots::of_item(p.all_workers, s * items + item) : PartialSlots::of_part(worker, worker == first);
    return p.slots + (slot * p.slot_columns + query % columns) * (head_dim + 2);
  };

  // Lane l knows maximum and sum of every 32nd part of the warp's run, and holds every 32nd dimension.
  constexpr int share = (head_dim + warp_size - 1) / warp_size;
  const int run = (last - first + warps) / warps, run_first = first + warp * run, run_last = min(run_first + run - 1, last);
  float largest = -INFINITY, total = 0.f, out[share] = {};
  for (int base = run_first; base <= run_last; base += warp_size) {
    float2 mine = make_float2(-INFINITY, 0.f);
    if (base + lane <= run_last) mine = *reinterpret_cast<const float2*>(part(base + lane) + head_dim);
    const float larger = fmaxf(largest, max_over_columns(max_over_rows(mine.x)));
    const float shrink = exp2_approx(largest - larger), factor = exp2_approx(mine.x - larger);
    largest = larger;
    total = total * shrink + sum_over_columns(sum_over_rows(factor * mine.y));
#pragma unroll
    for (int d = 0; d < share; ++d) out[d] *= shrink;
    const int count = min(warp_size, run_last - base + 1);
#pragma unroll 8
    for (int n = 0; n < count; ++n) {
      const float* row = part(base + n);
      const float weight = __shfl_sync(full_warp, factor, n);
#pragma unroll
      for (int d = 0; d < share; ++d)
        if (d * warp_size + lane < head_dim) out[d] += weight * row[d * warp_size + lane];
    }
  }
  float* mine = rows + warp * (head_dim + 2);
#pragma unroll
  for (int d = 0; d < share; ++d)
    if (d * warp_size + lane < head_dim) mine[d * warp_size + lane] = out[d];
  if (lane == 0) mine[head_dim] = largest, mine[head_dim + 1] = total;
  __syncthreads();
  if (warp > 0) return;
  for (int w = 0; w < warps; ++w) largest = fmaxf(largest, rows[w * (head_dim + 2) + head_dim]);
  float sum = 0.f;
#pragma unroll
  for (int d = 0; d < share; ++d) out[d] = 0.f;
  for (int w = 0; w < warps; ++w) {
    const float* row = rows + w * (head_dim + 2);
    const float factor = exp2_approx(row[head_dim] - largest);
    sum += factor * row[head_dim + 1];
#pragma unroll
    for (int d = 0; d < share; ++d)
      if (d * warp_size + lane < head_dim) out[d] += factor * row[d * warp_size + lane];
  }
#pragma unroll
  for (int d = 0; d < share; ++d)
    if (d * warp_size + lane < head_dim) rows[d * warp_size + lane] = out[d] / sum;
  __syncwarp();
  if (view.hadamard) hadamard_warp<head_dim>(rows, lane);
  auto* target = reinterpret_cast<std::uint32_t*>(p.out + view.query_starts[s] * p.out_stride + head * head_dim);
  for (int d = lane; d < head_dim / 2; d += warp_size) target[d] = store2(rows[2 * d], rows[2 * d + 1], view.is_bf16);
}

}  // namespace lmkit::kernels::cuda
