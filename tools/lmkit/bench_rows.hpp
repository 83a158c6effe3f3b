// SPDX-License-Identifier: Apache-2.0
//
// The rows of lmkit bench kernel: each function times ops of one kind on a rig, checks them against float64 and says `add`
// for every row.
#pragma once

#include "bench_rig.hpp"

#include <algorithm>
#include <functional>
#include <vector>

namespace lmkit::cli {

struct BenchJob {
  BenchRig& rig;
  std::int64_t repeats = 1;
  std::string kv;
  std::function<void(BenchRow)> add;
};

// A few numbers of [0, count), its ends among them. most >= 2
inline std::vector<std::int64_t> some_of(std::int64_t count, std::int64_t most) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < std::min(count, most); ++i) out.push_back(count <= most ? i : i * (count - 1) / (most - 1));
  return out;
}

// bench_gemm.cpp

// Each linear map of a layer, a layer's four together, and the output matrix for as many rows as the engine asks for.
void bench_gemm(BenchJob job, const std::vector<std::int64_t>& tokens);

// bench_small_ops.cpp

// rms_norm, add, silu_mul, embedding.
void bench_small_ops(BenchJob job, const std::vector<std::int64_t>& tokens);

// bench_sampling.cpp

void bench_sampling(BenchJob job, const std::vector<std::int64_t>& counts);

// bench_attention.cpp

// Sequences that a step adds `fresh` tokens to, each ending at its length.
struct AttentionCase {
  std::vector<std::int32_t> lengths;
  bool prefill = false;  // all tokens are new; otherwise the last one is
  bool ragged = false;
  std::int64_t depth = 0;

  int blocks() const;
  std::string name() const;  // "128 x 4096"
};

// Append and attend.
void bench_attention(BenchJob job, const AttentionCase& what);

// Half of the pool's blocks, one layer of them, to the other half; with random codes, so no attention after it.
void bench_copy_blocks(BenchJob job);

}  // namespace lmkit::cli
