// SPDX-License-Identifier: Apache-2.0
//
// WeightUpload: matrices of any format to 16-bit rows on the GPU. Host threads convert into one pinned buffer while the
// other is copied.
#pragma once

#include "cuda_queue.hpp"

#include <lmkit/base/tensor_view.hpp>

#include <array>

namespace lmkit::kernels::cuda {

class WeightUpload {
 public:
  WeightUpload(CudaQueue& queue, Dtype dtype, Stream threads) noexcept : queue_(queue), dtype_(dtype), threads_(threads) {}
  ~WeightUpload() { release(); }

  // to: (rows, cols) on the device
  void put(const MatrixView& matrix, std::byte* to);
  // Gives the buffers back once all copies have run.
  void release();

 private:
  static constexpr std::int64_t buffer_bytes = 16 << 20;
  struct Buffer {
    std::byte* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };

  void convert(const MatrixView& matrix, std::int64_t begin, std::int64_t end, std::byte* to) const;

  CudaQueue& queue_;
  Dtype dtype_;
  Stream threads_;
  std::array<Buffer, 2> buffers_;
  int next_ = 0;
};

}  // namespace lmkit::kernels::cuda
