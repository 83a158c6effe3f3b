// SPDX-License-Identifier: Apache-2.0
//
// Kernels of our own for products with few tokens, whose cost is reading W once.
#pragma once

#include "gemm_warpgroup.hpp"

#include <lmkit/kernels/cuda/gemm.hpp>

namespace lmkit::kernels::cuda {

// The kernels on the device that was current. A product has several ways, a number in [0, ways) each: way n < warp_ways gives a row's
// columns to a cluster of 2ⁿ blocks, whose warps multiply up to 32 tokens; the others are those of WarpgroupGemm.
class FewGemm {
 public:
  static constexpr std::int64_t most_tokens = WarpgroupGemm::most_tokens;
  static constexpr int warp_ways = 4, ways = warp_ways + WarpgroupGemm::ways;

  FewGemm();  // throws Error(device)

  // Up to which a layer's products beat cuBLASLt's on an H200; 16 without warpgroups.
  std::int64_t usual_tokens() const noexcept { return warpgroups_.exists() ? most_tokens : 16; }

  // Whether the way exists here, has shared memory enough, and leaves no block of a cluster without columns.
  bool can_run(int way, const GemmShape& shape, std::int64_t tokens) const noexcept;

  // can_run. W must have been written before the launch before: that may still run while the first rows are read.
  Status run(int way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept;

 private:
  int stages_of(int way, const GemmShape& shape, std::int64_t tokens) const noexcept;  // that fit; 0: too few

  int shared_ = 0;                // bytes a block may have
  int clusters_[warp_ways] = {};  // that run at a time, one block a multiprocessor; 0: not here
  bool overlaps_ = false;         // with the launch before
  WarpgroupGemm warpgroups_;
};

}  // namespace lmkit::kernels::cuda
