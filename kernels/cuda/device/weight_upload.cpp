// SPDX-License-Identifier: Apache-2.0
#include "weight_upload.hpp"

#include <lmkit/base/half.hpp>
#include <lmkit/kernels/embedding.hpp>

#include <algorithm>
#include <cstring>
#include <vector>

namespace lmkit::kernels::cuda {
namespace {

std::uint16_t bits_of(float x, Dtype dtype) noexcept { return dtype == Dtype::f16 ? to_half(x).bits : to_bfloat16(x).bits; }

bool is_stored_as(WeightFormat format, Dtype dtype) noexcept {
  return format == (dtype == Dtype::f16 ? WeightFormat::f16 : WeightFormat::bf16);
}

}  // namespace

void WeightUpload::put(const MatrixView& matrix, std::byte* to) {
  if (matrix.rows == 0 || matrix.cols == 0) return;
  const std::int64_t row_bytes = matrix.cols * 2;
  const std::int64_t share = std::max<std::int64_t>(1, buffer_bytes / row_bytes);
  for (std::int64_t begin = 0; begin < matrix.rows; begin += share) {
    const std::int64_t end = std::min(begin + share, matrix.rows);
    Buffer& buffer = buffers_[next_];
    next_ = 1 - next_;
    if (!buffer.memory) {
      void* memory = nullptr;
      require(cudaHostAlloc(&memory, static_cast<std::size_t>(std::max(buffer_bytes, row_bytes)), cudaHostAllocDefault), "pinning host memory");
      buffer.memory = static_cast<std::byte*>(memory);
      require(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming), "making a CUDA event");
    }
    require(cudaEventSynchronize(buffer.copied), "copying weights to the GPU");
    convert(matrix, begin, end, buffer.memory);
    require(cudaMemcpyAsync(to + begin * row_bytes, buffer.memory, static_cast<std::size_t>((end - begin) * row_bytes), cudaMemcpyHostToDevice,
                            queue_.cuda_stream()),
            "copying weights to the GPU");
    require(cudaEventRecord(buffer.copied, queue_.cuda_stream()), "copying weights to the GPU");
  }
}

// Rows begin .. end - 1, in parallel.
void WeightUpload::convert(const MatrixView& matrix, std::int64_t begin, std::int64_t end, std::byte* to) const {
  const std::int64_t tasks = std::min<std::int64_t>(end - begin, 64);
  threads_.parallel_for(static_cast<std::int32_t>(tasks), [&](std::int32_t task, std::int32_t) {
    std::vector<float> row(static_cast<std::size_t>(matrix.cols));
    for (std::int64_t r = begin + (end - begin) * task / tasks; r < begin + (end - begin) * (task + 1) / tasks; ++r) {
      auto* const target = reinterpret_cast<std::uint16_t*>(to + (r - begin) * matrix.cols * 2);
      if (is_stored_as(matrix.format, dtype_)) {
        std::memcpy(target, matrix.row(r), static_cast<std::size_t>(matrix.cols) * 2);
      } else {
        expand_row(matrix, r, row.data());
        std::ranges::transform(row, target, [this](float x) { return bits_of(x, dtype_); });
      }
    }
  });
}

void WeightUpload::release() {
  for (Buffer& buffer : buffers_) {
    if (!buffer.memory) continue;
    cudaEventSynchronize(buffer.copied);
    cudaEventDestroy(buffer.copied);
    cudaFreeHost(buffer.memory);
    buffer = {};
  }
}

}  // namespace lmkit::kernels::cuda
