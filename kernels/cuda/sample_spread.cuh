// SPDX-License-Identifier: Apache-2.0
//
// The draw where more tokens than `capacity` may be drawn: a flat distribution, or many equal logits. One block of threads finds the
// end of each prefix digit by digit of the logit's bits, in passes over the whole row: up to eleven. Weights are whole
// numbers of 2^-43, so that their sums do not depend on an order.
#pragma once

#include "sample_row.cuh"

namespace lmkit::kernels::cuda::sampling {

using Mass = unsigned long long;

struct Located {
  Mass mass;          // of the prefix that reaches what was wanted
  std::uint32_t key;  // of its last logit
  int tie;            // which of those that have this key is the last, from 0
};

// One level's histogram. Also lends its room to draw_sorted.
struct alignas(8) Digits {
  static constexpr int most = 2048;
  std::uint32_t count[most], low[most], high[most];

  __device__ void add(int digit, Mass mass) {
    atomicAdd(&count[digit], 1u);
    const auto part = static_cast<std::uint32_t>(mass);
    const bool carry = atomicAdd(&low[digit], part) + part < part;
    if (const auto rest = static_cast<std::uint32_t>(mass >> 32) + carry) atomicAdd(&high[digit], rest);
  }
  __device__ Mass mass(int digit) const { return Mass{high[digit]} << 32 | low[digit]; }
};

struct SpreadRow {
  const float* row;
  int vocabulary;
  Scale scale;
  Digits& digits;

  __device__ Mass mass_of(float logit) const { return __float2ull_rn(scale.weight(logit) * 0x1p43f); }

  __device__ Mass mass_from(float least) const {
    Mass own = 0, all;
    for_each_logit(row, 0, vocabulary, [&](int, float x) { own += scale.weight(x) >= least ? mass_of(x) : 0; });
    sum_before(own, all);
    return all;
  }

  // The shortest prefix, best first, of `wanted` tokens, or of mass `wanted`. 0 < wanted <= all there is.
  __device__ Located locate(Mass wanted, bool by_count) const {
    constexpr int each = Digits::most / threads;
    __shared__ std::uint32_t key;
    __shared__ Mass counted, massed;  // before the key
    if (threadIdx.x == 0) key = 0, counted = massed = 0;
    for (const int shift : {21, 10, 0}) {
      for (int d = threadIdx.x; d < Digits::most; d += threads) digits.count[d] = digits.low[d] = digits.high[d] = 0;
      __syncthreads();
      const int above = shift == 21 ? 32 : shift == 10 ? 21 : 10, mask = (1 << (above - shift)) - 1;
      const std::uint64_t found = std::uint64_t{key} >> above;
      for_each_logit(row, 0, vocabulary, [&](int, float x) {
        const std::uint32_t d = descending(x);
        if (std::uint64_t{d} >> above == found) digits.add(d >> shift & mask, mass_of(x));
      });
      __syncthreads();
      Mass counts = 0, masses = 0, ignored;
      for (int i = 0; i < each; ++i) counts += digits.count[threadIdx.x * each + i], masses += digits.mass(threadIdx.x * each + i);
      const Mass counts_before = counted + sum_before(counts, ignored), masses_before = massed + sum_before(masses, ignored);
      __syncthreads();
      Mass count = counts_before, mass = masses_before;
      for (int i = 0; i < each; ++i) {
        const int d = threadIdx.x * each + i;
        const Mass next_count = count + digits.count[d], next_mass = mass + digits.mass(d);
        if ((by_count ? count : mass) < wanted && (by_count ? next_count : next_mass) >= wanted) {
          key |= static_cast<std::uint32_t>(d) << shift;
          counted = count, massed = mass;
        }
        count = next_count, mass = next_mass;
      }
      __syncthreads();
    }
    const Mass one = mass_of(logit_of(key));
    const Mass ties = by_count ? wanted - counted : (wanted - massed + one - 1) / one;
    const Located located{massed + ties * one, key, static_cast<int>(ties - 1)};
    __syncthreads();
    return located;
  }

  // The token of the given tie among the logits with the given key.
  __device__ int token_of(const Located& l) const {
    __shared__ int token;
    int passed = 0, own_rank, all;
    for (int begin = 0;; begin += threads) {
      const int n = begin + threadIdx.x;
      const bool has = n < vocabulary && descending(row[n]) == l.key;
      all = __syncthreads_count(has);
      if (passed + all <= l.tie) {
        passed += all;
        continue;
      }
      own_rank = passed + sum_before(static_cast<int>(has), all);
      if (has && own_rank == l.tie) token = n;
      __syncthreads();
      return token;
    }
  }
};

__device__ inline int draw_spread(const SpreadRow& row, const Plan& plan, double uniform) {
  const auto part = [](double fraction, Mass mass) { return static_cast<Mass>(fraction * static_cast<double>(mass)); };
  Mass mass = plan.few ? row.locate(plan.top_k, true).mass : row.mass_from(0);
  if (plan.nucleus) {
    const Mass wanted = min(max(part(plan.top_p, mass), Mass{1}), mass);
    mass = row.locate(wanted, false).mass;
  }
  if (plan.min_p > 0) mass = min(mass, row.mass_from(plan.min_p));
  return row.token_of(row.locate(min(part(uniform, mass), mass - 1) + 1, false));
}

}  // namespace lmkit::kernels::cuda::sampling
