// SPDX-License-Identifier: Apache-2.0
//
// Kernels of our own for products with few tokens, whose cost is reading W once.
#pragma once

#include <lmkit/kernels/cuda/gemm.hpp>

namespace lmkit::kernels::cuda {

// How a product is laid out; a number in [0, count) stands for each.
struct FewWay {
  int splits;  // blocks of a cluster, which share a row's columns: 1, 2, 4 or 8
  int blocks;  // of a multiprocessor: 1 or 2
  int stages;  // of a warp's ring: 4 or 8

  static constexpr int count = 16;
  static constexpr FewWay of(int number) { return {1 << number % 4, 1 + number / 4 % 2, number / 8 ? 8 : 4}; }
};

// The kernels on the device that was current.
class FewGemm {
 public:
  static constexpr std::int64_t most_tokens = 32;

  FewGemm();  // throws Error(device)

  // Whether the way exists here, has shared memory enough, and leaves no block of a cluster without columns.
  bool can_run(FewWay way, const GemmShape& shape, std::int64_t tokens) const noexcept;

  // can_run. W must have been written before the launch before: it may still run while the first rows are read.
  Status run(FewWay way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept;

 private:
  int multiprocessors_ = 0, block_shared_ = 0, shared_ = 0;  // bytes a block may have, and a multiprocessor has
  bool sm90_ = false;                                        // clusters, and launches that overlap
};

}  // namespace lmkit::kernels::cuda
