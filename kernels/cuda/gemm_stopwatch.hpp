// SPDX-License-Identifier: Apache-2.0
//
// Times products of matrices at load as they run in a step: after launches that have read other memory, so that nothing of
// theirs is left in L2, and which they may overlap.
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

  // Microseconds of a launch, with those of the reading in between, which are always the same; `never` if it cannot run. What
  // is far from `best` is timed once.
  double time(double best, const std::function<Status()>& launch);

 private:
  double time_of(int launches, const std::function<Status()>& launch);
  void read_others();

  struct Memory {
    const void* data;
    std::int64_t bytes;
  };
  cudaStream_t stream_;
  Memory memory_[3];
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace lmkit::kernels::cuda
