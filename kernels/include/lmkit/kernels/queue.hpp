// SPDX-License-Identifier: Apache-2.0
//
// Queue: what is needed to live with a device whose work runs on after a call returns: copies from and to host memory,
// points to wait for, sampling where the logits are, and recordings (CUDA graphs) of work that is enqueued again and again.
//
// Everything runs in the order it was enqueued. [engine-thread] unless marked.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/kernels/cuda/sample.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace lmkit::kernels {

using cuda::LogitEdit;
using cuda::Sampled;
using cuda::SampleRow;

class Queue {
 public:
  static constexpr int points = 9;

  virtual ~Queue() = default;

  // Zeroed host memory that copies may run from and to; lives as long as the device. [load-time]
  virtual std::span<std::byte> pinned(std::int64_t bytes) = 0;
  // The source stays as it is until the copy has run.
  virtual Status upload(void* to, const void* from, std::int64_t bytes) noexcept = 0;
  // rows of row_bytes each, which lie so many bytes apart
  virtual Status upload_rows(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t row_bytes,
                             std::int64_t rows) noexcept = 0;
  virtual Status download(void* to, const void* from, std::int64_t bytes) noexcept = 0;

  // Remembers this point; waits until everything before it has run. point < points
  virtual Status mark(int point) noexcept = 0;
  virtual Status wait(int point) noexcept = 0;
  // From one point to a later one; both have been reached. 0 where that is not known.
  virtual double seconds_between(int first, int second) noexcept = 0;

  // Where sample() leaves its draws, for embedding() of the next step to find. [load-time]
  virtual void draw_into(Sampled* drawn) noexcept = 0;
  virtual std::int64_t sample_workspace_bytes(std::int64_t rows, std::int64_t vocabulary) const noexcept = 0;
  // As in cuda/sample.hpp.
  virtual Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, LogitEdit* edits,
                        void* workspace) noexcept = 0;

  // Records what `work` enqueues without running it; throws Error(device). [load-time]
  virtual int record(const std::function<Status()>& work) = 0;
  virtual Status replay(int recording) noexcept = 0;
};

}  // namespace lmkit::kernels
