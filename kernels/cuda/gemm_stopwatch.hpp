// SPDX-License-Identifier: Apache-2.0
//
// Times products of matrices at load as they run in a step, one after another, which they may overlap, and with little of
// their weights left in L2: weights that are no larger than L2 have the workspace, x and y read in between, unless there are so
// many tokens that reading the weights is not what the product waits for.
#pragma once

#include <lmkit/kernels/cuda/gemm.hpp>

#include <cuda_runtime_api.h>

#include <functional>
#include <limits>

namespace lmkit::kernels::cuda {

class Stopwatch {
 public:
  static constexpr double never = std::numeric_limits<double>::infinity();

  // The memory of a product, which is read in between. Throws Error(device).
  Stopwatch(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;

  // Microseconds of a launch for so many tokens, with those of the reading in between, which are the same for each; `never` if
  // it cannot run. What is far from `best` is timed less.
  double time(std::int64_t tokens, double best, const std::function<Status()>& launch);

 private:
  double time_of(int launches, bool reads, const std::function<Status()>& launch);
  void read_others();

  struct Memory {
    const void* data;
    std::int64_t bytes;
  };
  cudaStream_t stream_;
  std::int64_t weight_bytes_;
  Memory memory_[3];
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace lmkit::kernels::cuda
