// SPDX-License-Identifier: Apache-2.0
//
// Kernels of our own for products with up to 64 tokens on sm_90a, whose cost is reading W once.
#pragma once

#include <lmkit/kernels/cuda/gemm.hpp>

namespace lmkit::kernels::cuda {

// The kernels on the device that was current. A product has several ways, a number in [0, ways) each: way n gives a row's columns to a
// cluster of n + 1 blocks.
class WarpgroupGemm {
 public:
  static constexpr std::int64_t most_tokens = 64;
  static constexpr int ways = 2;

  WarpgroupGemm();  // throws Error(device)

  bool exists() const noexcept { return clusters_[0] > 0; }

  // Whether the way exists here, has shared memory enough, and leaves no block without columns.
  bool can_run(int way, const GemmShape& shape, std::int64_t tokens) const noexcept;

  // can_run. W must have been written before the launch before: that may still run while the first rows are read.
  Status run(int way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept;

 private:
  int eights_of(int way, const GemmShape& shape) const noexcept;  // rows of a tile, by 8
  int stages_of(int way, const GemmShape& shape, std::int64_t tokens) const noexcept;  // that fit; 0: too few

  int shared_ = 0;           // bytes a block may have
  int clusters_[ways] = {};  // that run at a time, one block a multiprocessor; 0: not here
  void* encode_ = nullptr;   // the driver's cuTensorMapEncodeTiled
};

}  // namespace lmkit::kernels::cuda
