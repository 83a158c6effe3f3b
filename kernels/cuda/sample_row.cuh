// SPDX-License-Identifier: Apache-2.0
//
// What the sampling kernels share: the arithmetic of one logit, what they leave each other in the workspace, sums over a
// block of threads.
#pragma once

#include <lmkit/kernels/cuda/prim.cuh>
#include <lmkit/kernels/cuda/sample.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda::sampling {

inline constexpr int threads = 512;
inline constexpr int warps = threads / warp_size;
inline constexpr int batch = 8;           // loads a thread has under way
inline constexpr int most_slices = 64;    // of a row
inline constexpr int capacity = 4096;     // candidates that are sorted; 8 a thread
inline constexpr int most_vocabulary = 1 << 20;

// --- one logit -------------------------------------------------------------------------------------------------------

// Bits that ascend as logits descend.
__device__ __forceinline__ std::uint32_t descending(float logit) {
  const std::uint32_t bits = __float_as_uint(logit + 0.f);  // -0 is 0
  return bits & 0x80000000u ? bits : ~bits ^ 0x80000000u;
}
__device__ __forceinline__ float logit_of(std::uint32_t descending) {
  return __uint_as_float(descending & 0x80000000u ? descending : ~descending ^ 0x80000000u);
}

// How far a logit lies below the largest, in units of the temperature; its weight is exp(-depth), 0 below 1e-37.
struct Scale {
  float largest, inverse_temperature;
  __device__ __forceinline__ float depth(float logit) const { return (largest - logit) * inverse_temperature; }
  __device__ __forceinline__ float weight(float logit) const { return weight_at(depth(logit)); }
  __device__ static __forceinline__ float weight_at(float depth) {
    const float w = expf(-depth);
    return w < 1e-37f ? 0.f : w;
  }
};

// Depths from 0 to 128, each power of two from 2^-24 on in 64 parts.
inline constexpr int bins = 2048;
inline constexpr std::uint32_t first_bin = (127 - 24) << 6;
__device__ __forceinline__ int bin_of(float depth) {
  const std::uint32_t part = __float_as_uint(depth) >> 17;
  return part <= first_bin ? 0 : min(static_cast<int>(part - first_bin), bins - 1);
}
__device__ __forceinline__ float least_depth(int bin) { return bin == 0 ? 0.f : __uint_as_float((bin + first_bin) << 17); }

// Philox4x32-10 (Salmon et al. 2011) as a number in [0, 1) with 53 random bits.
__device__ inline double uniform_of(std::uint64_t seed, std::uint64_t position) {
  std::uint32_t a = static_cast<std::uint32_t>(position), b = static_cast<std::uint32_t>(position >> 32), c = 0, d = 0;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    const std::uint32_t a_high = __umulhi(0xd2511f53u, a), a_low = 0xd2511f53u * a;
    const std::uint32_t c_high = __umulhi(0xcd9e8d57u, c), c_low = 0xcd9e8d57u * c;
    a = c_high ^ b ^ k0, b = c_low, c = a_high ^ d ^ k1, d = a_low;
  }
  return static_cast<double>((std::uint64_t{a} << 32 | b) >> 11) * 0x1p-53;
}

// --- what the launches leave each other ----------------------------------------------------------------------------------

// Of one slice of a row, then of the row.
struct Survey {
  float largest = -INFINITY, sum = 0;  // of the logits as they came: sum exp(logit - largest); NaN if a logit is
  float best = -INFINITY;              // the largest once edited
  std::int32_t token = INT32_MAX;      // the first that has it

  __device__ __forceinline__ void merge_sum(float other, float other_sum) {
    const float top = fmaxf(largest, other);
    sum = top > -INFINITY ? sum * __expf(largest - top) + other_sum * __expf(other - top) : sum + other_sum;
    largest = top;
  }
  __device__ __forceinline__ void merge_best(float other, std::int32_t other_token) {
    if (other > best || (other == best && other_token < token)) best = other, token = other_token;
  }
};

enum class Task : std::int32_t { none, sorted, spread };  // how the third launch draws

struct State {
  float normalizer;  // log sum exp of the logits as they came
  float largest;     // of the edited logits
  double mass;       // of all weights
  Task task;
  std::int32_t cut;         // the last bin whose tokens can be drawn
  std::int32_t candidates;  // gathered so far
  std::int32_t narrowed, gathered;  // slices that are done
};

struct View {
  float* logits;
  const SampleRow* rows;
  LogitEdit* edits;
  Sampled* out;
  Survey* surveys;        // (count, slices)
  double* masses;         // (count, slices)
  State* states;          // (count)
  std::uint32_t* counts;  // (count, bins)
  std::uint64_t* lists;   // (count, capacity): descending(logit) << 32 | token
  int vocabulary, slices, slice;  // slice: tokens of each

  __device__ float* row(int n) const { return logits + static_cast<std::int64_t>(n) * vocabulary; }
};

// How a row is drawn.
struct Plan {
  Scale scale;
  bool few, nucleus;  // top-k, top-p keep less than all
  int top_k;
  float top_p, min_p;

  __device__ Plan(const SampleRow& r, float largest, int vocabulary)
      : scale{largest, 1 / r.temperature}, few(r.top_k > 0 && r.top_k < vocabulary), nucleus(r.top_p < 1), top_k(r.top_k), top_p(r.top_p), min_p(r.min_p) {}
};

__device__ __forceinline__ bool is_greedy(const SampleRow& r) { return !(r.temperature > 0) || isinf(1 / r.temperature); }

// --- over a block of threads -----------------------------------------------------------------------------------------------

// Calls visit(token, logit) for this thread's part of [begin, end), tokens ascending.
template <class Visit>
__device__ __forceinline__ void for_each_logit(const float* row, int begin, int end, Visit&& visit) {
  int token = begin + threadIdx.x;
  for (; token + (batch - 1) * threads < end; token += batch * threads) {
    float x[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i) x[i] = row[token + i * threads];
#pragma unroll
    for (int i = 0; i < batch; ++i) visit(token + i * threads, x[i]);
  }
  for (; token < end; token += threads) visit(token, row[token]);
}

// The sum of what the threads before this one have; all: of every thread's. Every thread of the block takes part.
template <class T>
__device__ T sum_before(T own, T& all) {
  __shared__ T of_warp[warps];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  T sum = own;
#pragma unroll
  for (int step = 1; step < warp_size; step *= 2) {
    const T other = __shfl_up_sync(full_warp, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();  // who still reads what a call before left
  if (lane == warp_size - 1) of_warp[warp] = sum;
  __syncthreads();
  T before = 0;
  all = 0;
#pragma unroll
  for (int w = 0; w < warps; ++w) {
    if (w == warp) before = all;
    all += of_warp[w];
  }
  const T left = __shfl_up_sync(full_warp, sum, 1);
  return lane == 0 ? before : before + left;
}

// True in every thread of the last of a row's blocks to come here; what the others wrote before is then visible.
__device__ inline bool is_last(std::int32_t& counter, int blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&counter, 1) == blocks - 1;
  __syncthreads();
  __threadfence();
  return last;
}

// The outcome of a row, with the chosen token's logit as it came.
__device__ inline void finish(const View& v, int n, int token, float normalizer) {
  __shared__ float logit;
  const SampleRow& r = v.rows[n];
  __syncthreads();
  if (threadIdx.x == 0) logit = v.row(n)[token];
  __syncthreads();
  if (r.known < 0) {
    for (int e = r.edits_begin + threadIdx.x; e < r.edits_end; e += threads)
      if (v.edits[e].token == token) logit = v.edits[e].bias;
  }
  __syncthreads();
  if (threadIdx.x == 0) v.out[n] = {token, logit - normalizer};
}

}  // namespace lmkit::kernels::cuda::sampling
