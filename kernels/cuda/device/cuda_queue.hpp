// SPDX-License-Identifier: Apache-2.0
//
// CudaQueue: a CUDA stream as a Queue. Recordings are CUDA graphs.
#pragma once

#include "runtime.hpp"

#include <lmkit/kernels/queue.hpp>

#include <array>
#include <vector>

namespace lmkit::kernels::cuda {

class CudaQueue final : public Queue {
 public:
  CudaQueue(int gpu, const lmkit_host* host);
  ~CudaQueue() override;

  cudaStream_t cuda_stream() const noexcept { return stream_; }
  Stream stream() const noexcept { return {reinterpret_cast<lmkit_stream*>(stream_), host_}; }
  const Sampled* drawn() const noexcept { return drawn_; }

  std::span<std::byte> pinned(std::int64_t bytes) override;
  Status upload(void* to, const void* from, std::int64_t bytes) noexcept override;
  Status upload_rows(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t row_bytes,
                     std::int64_t rows) noexcept override;
  Status download(void* to, const void* from, std::int64_t bytes) noexcept override;
  Status mark(int point) noexcept override;
  Status wait(int point) noexcept override;
  double seconds_between(int first, int second) noexcept override;
  void draw_into(Sampled* drawn) noexcept override { drawn_ = drawn; }
  std::int64_t sample_workspace_bytes(std::int64_t rows, std::int64_t vocabulary) const noexcept override;
  Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, LogitEdit* edits,
                void* workspace) noexcept override;
  int record(const std::function<Status()>& work) override;
  Status replay(int recording) noexcept override;

 private:
  int gpu_;
  const lmkit_host* host_;
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, points> events_{};
  std::vector<void*> pinned_;
  std::vector<cudaGraphExec_t> graphs_;
  Sampled* drawn_ = nullptr;
};

}  // namespace lmkit::kernels::cuda
