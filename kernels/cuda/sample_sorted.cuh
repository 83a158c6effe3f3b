// SPDX-License-Identifier: Apache-2.0
//
// The draw among a row's gathered candidates, by one block of threads: they are sorted, best first, and every part of the
// parameters is the end of a prefix of that order.
#pragma once

#include "sample_row.cuh"

namespace lmkit::kernels::cuda::sampling {

// Bitonic sort, ascending; size is a power of two.
__device__ inline void sort(std::uint64_t* keys, int size) {
  for (int run = 2; run <= size; run *= 2)
    for (int step = run / 2; step > 0; step /= 2) {
      for (int pair = threadIdx.x; pair < size / 2; pair += threads) {
        const int low = 2 * pair - (pair & (step - 1)), high = low + step;
        const std::uint64_t a = keys[low], b = keys[high];
        if ((a > b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
      }
      __syncthreads();
    }
}

// The sorted weights, a stretch a thread, and the sums of their prefixes.
struct Prefixes {
  static constexpr int most = capacity / threads;
  float weight[most];
  double before, all;
  int first, each;  // of the stretch

  __device__ Prefixes(const std::uint64_t* keys, int size, int kept, const Scale& scale) {
    each = max(1, size / threads), first = threadIdx.x * each;
    double own = 0;
#pragma unroll
    for (int i = 0; i < most; ++i) {
      const bool valid = i < each && first + i < kept;
      weight[i] = valid ? scale.weight(logit_of(static_cast<std::uint32_t>(keys[first + i] >> 32))) : 0.f;
      own += weight[i];
    }
    before = sum_before(own, all);
  }

  struct Prefix {
    int last;
    double sum;
  };
  // The shortest prefix whose sum enough() takes, at most up to `last`.
  template <class Enough>
  __device__ Prefix shortest(int last, Enough&& enough) const {
    __shared__ int end;
    __shared__ double sum_at_end;
    __syncthreads();
    if (threadIdx.x == 0) end = last;
    __syncthreads();
    double sum = before;
    int found = INT32_MAX;
#pragma unroll
    for (int i = 0; i < most; ++i) {
      if (i >= each || found != INT32_MAX) continue;
      sum += weight[i];
      if (first + i == last || (first + i < last && enough(sum))) found = first + i;
    }
    if (found <= last) atomicMin(&end, found);
    __syncthreads();
    if (found == end) sum_at_end = sum;
    __syncthreads();
    return {end, sum_at_end};
  }

  __device__ int count_from(float least) const {
    int own = 0, count;
#pragma unroll
    for (int i = 0; i < most; ++i) own += weight[i] > 0 && weight[i] >= least;
    sum_before(own, count);
    return count;
  }
};

// keys: `count` of them, room for `capacity`, sorted here. mass: of the weights of all tokens, gathered or not.
__device__ inline int draw_sorted(std::uint64_t* keys, int count, const Plan& plan, double mass, double uniform) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + threadIdx.x; i < size; i += threads) keys[i] = ~std::uint64_t{0};
  __syncthreads();
  sort(keys, size);

  const int kept = plan.few ? min(count, plan.top_k) : count;
  const Prefixes prefixes(keys, size, kept, plan.scale);
  int last = kept - 1;
  if (plan.nucleus) {
    const double wanted = plan.top_p * (plan.few ? prefixes.all : mass);
    last = prefixes.shortest(last, [&](double sum) { return sum >= wanted; }).last;
  }
  if (plan.min_p > 0) last = min(last, max(prefixes.count_from(plan.min_p), 1) - 1);
  const double target = uniform * prefixes.shortest(last, [](double) { return false; }).sum;
  const int drawn = prefixes.shortest(last, [&](double sum) { return sum > target; }).last;
  return static_cast<int>(keys[drawn] & 0xffffffffu);
}

}  // namespace lmkit::kernels::cuda::sampling
