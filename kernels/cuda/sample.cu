// SPDX-License-Identifier: Apache-2.0
//
// survey -> narrow -> draw, a grid of (slices, rows) each.
//     survey  the largest logit and sum exp(logit) of a slice; the slice's edits, and its largest logit after them
//     narrow  ends greedy rows, scored tokens and draws among all tokens; else counts tokens by how far they lie below
//             the largest, and finds the depth below which none can be drawn
//     draw    gathers the tokens above that depth, few as a rule, sorts them and draws
// The last block of a row to be done with a launch does what needs the whole row.
#include "launch.cuh"
#include "sample_row.cuh"
#include "sample_sorted.cuh"
#include "sample_spread.cuh"

#include <algorithm>

namespace lmkit::kernels::cuda {

namespace sampling {
namespace {

// --- survey ----------------------------------------------------------------------------------------------------------

__device__ Survey over_block(Survey own) {
  __shared__ Survey of_warp[warps];
  const auto merge_lanes = [&] {
#pragma unroll
    for (int step = warp_size / 2; step > 0; step /= 2) {
      own.merge_sum(__shfl_xor_sync(full_warp, own.largest, step), __shfl_xor_sync(full_warp, own.sum, step));
      own.merge_best(__shfl_xor_sync(full_warp, own.best, step), __shfl_xor_sync(full_warp, own.token, step));
    }
  };
  merge_lanes();
  __syncthreads();
  if (threadIdx.x % warp_size == 0) of_warp[threadIdx.x / warp_size] = own;
  __syncthreads();
  own = threadIdx.x % warp_size < warps ? of_warp[threadIdx.x % warp_size] : Survey{};
  merge_lanes();
  return own;
}

// As the CPU's sampler does it, each operation rounded.
__device__ float edited(float logit, const LogitEdit& edit, const SampleRow& r) {
  logit = __fadd_rn(logit, edit.bias);
  if (edit.seen) logit = logit > 0 ? __fdiv_rn(logit, r.repetition_penalty) : __fmul_rn(logit, r.repetition_penalty);
  if (edit.in_answer > 0) {
    logit = __fsub_rn(logit, __fadd_rn(r.presence_penalty, __fmul_rn(static_cast<float>(edit.in_answer), r.frequency_penalty)));
  }
  return logit;
}

__global__ void __launch_bounds__(threads, 2) survey_kernel(View v) {
  start_dependents();
  const int n = blockIdx.y, begin = blockIdx.x * v.slice, end = min(begin + v.slice, v.vocabulary);
  float* const row = v.row(n);
  const SampleRow& r = v.rows[n];
  for (int i = blockIdx.x * threads + threadIdx.x; i < bins; i += v.slices * threads) v.counts[n * bins + i] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) v.states[n] = {};

  Survey s;
  for_each_logit(row, begin, end, [&](int token, float x) {
    if (x > s.largest) {
      s.sum = s.sum * __expf(s.largest - x) + 1;
      s.largest = s.best = x, s.token = token;
    } else if (x != -INFINITY) {
      s.sum += __expf(x - s.largest);  // NaN from the first x that is
    }
  });
  if (r.known < 0 && r.edits_begin < r.edits_end) {
    __syncthreads();
    for (int e = r.edits_begin + threadIdx.x; e < r.edits_end; e += threads) {
      const int token = v.edits[e].token;
      if (token < begin || token >= end) continue;
      const float original = row[token];
      row[token] = edited(original, v.edits[e], r);
      v.edits[e].bias = original;
    }
    __syncthreads();
    s.best = -INFINITY, s.token = INT32_MAX;
    for_each_logit(row, begin, end, [&](int token, float x) {
      if (x > s.best) s.best = x, s.token = token;
      else if (x != x) s.sum = x;
    });
  }
  s = over_block(s);
  if (threadIdx.x == 0) v.surveys[n * v.slices + blockIdx.x] = s;
}

// Of the whole row, in every thread.
__device__ Survey merged(const View& v, int n) {
  Survey own;
  const int lane = threadIdx.x % warp_size;
  for (int i = lane; i < v.slices; i += warp_size) {
    const Survey& other = v.surveys[n * v.slices + i];
    own.merge_sum(other.largest, other.sum);
    own.merge_best(other.best, other.token);
  }
#pragma unroll
  for (int step = warp_size / 2; step > 0; step /= 2) {
    own.merge_sum(__shfl_xor_sync(full_warp, own.largest, step), __shfl_xor_sync(full_warp, own.sum, step));
    own.merge_best(__shfl_xor_sync(full_warp, own.best, step), __shfl_xor_sync(full_warp, own.token, step));
  }
  return own;
}

// --- narrow ------------------------------------------------------------------------------------------------------------

// The token of [begin, end) at which the sum of weights, in the order of tokens, passes `target`; `otherwise` if rounding
// keeps it from that.
__device__ int draw_in_order(const float* row, int begin, int end, const Plan& plan, double target, int otherwise) {
  __shared__ int drawn;
  if (threadIdx.x == 0) drawn = otherwise;
  for (; begin < end; begin += threads * batch) {
    float w[batch];
    double own = 0, all;
    const int first = begin + threadIdx.x * batch;
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      w[i] = first + i < end ? plan.scale.weight(row[first + i]) : 0.f;
      if (w[i] < plan.min_p) w[i] = 0;
      own += w[i];
    }
    double sum = sum_before(own, all);
    if (target >= all) {
      target -= all;
      continue;
    }
    if (sum <= target && target < sum + own) {
      int token = -1;
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        if (w[i] > 0 && sum <= target) token = first + i;
        sum += w[i];
      }
      drawn = token;
    }
    break;
  }
  __syncthreads();
  return drawn;
}

// The last bin whose tokens can be drawn: no part of the parameters keeps a token below it.
__device__ void find_cut(const View& v, int n, const Plan& plan, State& state) {
  constexpr int each = bins / threads;
  __shared__ int cut;
  if (threadIdx.x == 0) cut = bins - 1;
  __syncthreads();
  const std::uint32_t* counts = v.counts + n * bins;
  std::uint32_t count[each];
  int own = 0, all;
  double own_mass = 0, all_mass;  // at most, of these bins' tokens
#pragma unroll
  for (int i = 0; i < each; ++i) {
    count[i] = __ldcg(counts + threadIdx.x * each + i);
    own += static_cast<int>(count[i]);
    own_mass += count[i] * static_cast<double>(Scale::weight_at(least_depth(threadIdx.x * each + i)));
  }
  int before = sum_before(own, all);
  double after = sum_before(own_mass, all_mass);
  after = all_mass - after;
  const double needless = (1 - static_cast<double>(plan.top_p) - 1e-6) * state.mass - 1e-9 * all_mass;  // less the rounding of either side
  int first = bins - 1;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int bin = threadIdx.x * each + i;
    before += static_cast<int>(count[i]);
    after -= count[i] * static_cast<double>(Scale::weight_at(least_depth(bin)));
    if (plan.few ? before >= plan.top_k : after <= needless) first = min(first, bin);
  }
  if (plan.min_p > 0 && !(plan.few && plan.nucleus)) first = min(first, bin_of(-logf(plan.min_p)) + 1);  // top-p counts what top-k left
  atomicMin(&cut, first);
  __syncthreads();
  int kept = 0;
#pragma unroll
  for (int i = 0; i < each; ++i) kept += threadIdx.x * each + i <= cut ? static_cast<int>(count[i]) : 0;
  sum_before(kept, all);
  if (threadIdx.x == 0) {
    state.cut = cut;
    state.task = all <= capacity ? Task::sorted : Task::spread;
  }
}

__global__ void __launch_bounds__(threads, 2) narrow_kernel(View v) {
  start_dependents();
  wait_for_prerequisites();
  const int n = blockIdx.y, begin = blockIdx.x * v.slice, end = min(begin + v.slice, v.vocabulary);
  const float* const row = v.row(n);
  const SampleRow& r = v.rows[n];
  const bool drawn = r.known < 0 && !is_greedy(r);
  if (!drawn && blockIdx.x > 0) return;
  const Survey survey = merged(v, n);
  const float normalizer = survey.largest + logf(survey.sum);
  const bool numbers = isfinite(survey.best) && survey.sum == survey.sum;
  if (!drawn || !numbers) {
    if (blockIdx.x > 0) return;
    if (r.known >= 0 || numbers) finish(v, n, r.known >= 0 ? r.known : survey.token, normalizer);
    else if (threadIdx.x == 0) v.out[n] = {};
    return;
  }

  const Plan plan(r, survey.best, v.vocabulary);
  State& state = v.states[n];
  __shared__ std::uint32_t counts[bins];
  const bool counting = plan.few || plan.nucleus;
  if (counting) {
    for (int i = threadIdx.x; i < bins; i += threads) counts[i] = 0;
    __syncthreads();
  }
  double own = 0, mass;
  float part = 0;
  for_each_logit(row, begin, end, [&](int, float x) {
    const float depth = plan.scale.depth(x), w = Scale::weight_at(depth);
    part += !counting && w < plan.min_p ? 0.f : w;
    if (counting && w > 0) atomicAdd(&counts[bin_of(depth)], 1u);
  });
  own = part;
  sum_before(own, mass);
  if (threadIdx.x == 0) v.masses[n * v.slices + blockIdx.x] = mass;
  if (counting) {
    for (int i = threadIdx.x; i < bins; i += threads)
      if (counts[i] > 0) atomicAdd(&v.counts[n * bins + i], counts[i]);
  }
  if (!is_last(state.narrowed, v.slices)) return;

  const double of_slice = threadIdx.x < v.slices ? __ldcg(&v.masses[n * v.slices + threadIdx.x]) : 0;
  const double before = sum_before(of_slice, mass);
  if (counting) {
    if (threadIdx.x == 0) state.normalizer = normalizer, state.largest = survey.best, state.mass = mass;
    __syncthreads();
    return find_cut(v, n, plan, state);
  }
  __shared__ int slice;
  __shared__ double rest;
  const double target = uniform_of(r.seed, static_cast<std::uint64_t>(r.position)) * mass;
  if (threadIdx.x == 0) slice = -1;
  __syncthreads();
  if (before <= target && target < before + of_slice) slice = threadIdx.x, rest = target - before;
  __syncthreads();
  int token = survey.token;
  if (slice >= 0) token = draw_in_order(row, slice * v.slice, min((slice + 1) * v.slice, v.vocabulary), plan, rest, token);
  finish(v, n, token, normalizer);
}

// --- draw ----------------------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(threads, 2) draw_kernel(View v) {
  wait_for_prerequisites();
  const int n = blockIdx.y;
  State& state = v.states[n];
  const Task task = state.task;
  if (task == Task::none || (task == Task::spread && blockIdx.x > 0)) return;

  __shared__ union Room {
    std::uint64_t keys[capacity];
    Digits digits;
    __device__ Room() {}
  } room;
  const float* const row = v.row(n);
  const SampleRow& r = v.rows[n];
  const Plan plan(r, state.largest, v.vocabulary);
  const double uniform = uniform_of(r.seed, static_cast<std::uint64_t>(r.position));
  if (task == Task::spread) return finish(v, n, draw_spread({row, v.vocabulary, plan.scale, room.digits}, plan, uniform), state.normalizer);

  std::uint64_t* const list = v.lists + static_cast<std::int64_t>(n) * capacity;
  const int begin = blockIdx.x * v.slice, end = min(begin + v.slice, v.vocabulary), cut = state.cut;
  for_each_logit(row, begin, end, [&](int token, float x) {
    const float depth = plan.scale.depth(x);
    if (bin_of(depth) <= cut && Scale::weight_at(depth) > 0)
      list[atomicAdd(&state.candidates, 1)] = std::uint64_t{descending(x)} << 32 | static_cast<std::uint32_t>(token);
  });
  if (!is_last(state.gathered, v.slices)) return;
  const int count = __ldcg(&state.candidates);
  for (int i = threadIdx.x; i < count; i += threads) room.keys[i] = __ldcg(list + i);
  __syncthreads();
  finish(v, n, draw_sorted(room.keys, count, plan, state.mass, uniform), state.normalizer);
}

// --- launch ----------------------------------------------------------------------------------------------------------------

constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Enough slices to fill the GPU four times over, none shorter than 2048 tokens.
int slices_for(std::int64_t rows, std::int64_t vocabulary) noexcept {
  int device = 0, processors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const std::int64_t useful = (vocabulary + 2047) / 2048, fill = (4 * processors + rows - 1) / rows;
  return static_cast<int>(std::clamp<std::int64_t>(std::min(useful, fill), 1, most_slices));
}

}  // namespace
}  // namespace sampling

using namespace sampling;

std::int64_t sample_workspace_bytes(std::int64_t rows, std::int64_t) noexcept {
  return aligned(rows * most_slices * sizeof(Survey)) + aligned(rows * most_slices * sizeof(double)) + aligned(rows * sizeof(State)) +
         aligned(rows * bins * sizeof(std::uint32_t)) + aligned(rows * capacity * sizeof(std::uint64_t));
}

Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, LogitEdit* edits, Sampled* out,
              void* workspace, Stream stream) noexcept {
  if (vocabulary < 1 || vocabulary > most_vocabulary) return refuse(stream, "sample on CUDA takes vocabularies up to 2^20");
  if (count < 0 || count > 65535) return refuse(stream, "sample on CUDA takes up to 65535 rows");
  if (count == 0) return Status::ok;
  View view{.logits = logits, .rows = rows, .edits = edits, .out = out, .vocabulary = static_cast<int>(vocabulary), .slices = slices_for(count, vocabulary)};
  view.slice = static_cast<int>((vocabulary + view.slices - 1) / view.slices);
  auto* at = static_cast<std::byte*>(workspace);
  const auto take = [&]<class T>(T*& array, std::int64_t size) {
    array = reinterpret_cast<T*>(at);
    at += aligned(size * static_cast<std::int64_t>(sizeof(T)));
  };
  take(view.surveys, std::int64_t{count} * most_slices);
  take(view.masses, std::int64_t{count} * most_slices);
  take(view.states, count);
  take(view.counts, std::int64_t{count} * bins);
  take(view.lists, std::int64_t{count} * capacity);

  const dim3 grid(static_cast<unsigned>(view.slices), static_cast<unsigned>(count));
  LaunchConfig config{.grid = grid, .block = dim3(threads), .stream = cuda_stream(stream)};
  config.launch(survey_kernel, view);
  config.overlap = may_overlap(narrow_kernel);
  config.launch(narrow_kernel, view);
  config.launch(draw_kernel, view);
  return launched(stream);
}

}  // namespace lmkit::kernels::cuda
