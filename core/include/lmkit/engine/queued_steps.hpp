// SPDX-License-Identifier: Apache-2.0
//
// QueuedSteps: the way of a step's numbers to a device with a queue, and of its draws back.
//
// A step's inputs are written to one of two pinned buffers and copied to arrays that always lie in the same place, so that
// recorded steps find them. A step of decodes alone is filled up to the next size that was recorded: the added sequences
// are one token long, share a block that is nobody else's, and their draws are not looked at.
#pragma once

#include <lmkit/engine/draw.hpp>
#include <lmkit/engine/rank_memory.hpp>
#include <lmkit/kernels/queue.hpp>
#include <lmkit/model/layers.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace lmkit {

// [engine-thread]
class QueuedSteps {
 public:
  // spare_block: an id no sequence is given. [load-time]
  QueuedSteps(kernels::Queue& queue, const StepLimits& limits, const StepRoom& room, std::span<float> logits, std::int32_t spare_block);

  const StepArrays& arrays() const noexcept { return arrays_; }

  // Numbers of decodes that steps are recorded for, ascending.
  static std::vector<int> recorded_sizes(int sequences);
  // A step of `size` decodes that are all fillers.
  StepPlan fillers(int size) const;

  // Enqueues the copy of a step's inputs, filled up to `size` decodes (0: as it is).
  Status upload(const StepPlan& plan, std::span<const Draw> draws, int size) noexcept;
  // Enqueues the sampling of so many rows.
  Status sample(int rows) noexcept;
  // Enqueues the copy of the draws back: the end of a step.
  Status download() noexcept;

  // Waits for the oldest step that is not finished.
  Status finish(std::span<Sampler> samplers, Stream threads, std::vector<Choice>& choices) noexcept;

  // From the end of each finished step's kernels to the beginning of the next one's, added up.
  double idle_seconds() const noexcept { return idle_seconds_; }

  // Logits of the step enqueued last, on the host.
  std::span<const float> logits() noexcept;

 private:
  // Points of the queue: the end of a step, and of a fetch; the beginning and the end of a step's kernels, of one step more since the
  // one before is asked for as well.
  static constexpr int steps_in_flight = 2, fetch_point = 2;
  static constexpr int step_point(std::int64_t step) { return static_cast<int>(step % steps_in_flight); }
  static constexpr int first_kernel_point(std::int64_t step) { return 3 + static_cast<int>(step % (steps_in_flight + 1)); }
  static constexpr int last_kernel_point(std::int64_t step) { return 6 + static_cast<int>(step % (steps_in_flight + 1)); }

  struct Slot {
    std::byte* inputs = nullptr;  // pinned, as on the device
    std::int32_t* block_tables = nullptr;
    kernels::LogitEdit* edits = nullptr;
    kernels::Sampled* drawn = nullptr;
    std::vector<Draw> draws;
  };

  Slot& next() noexcept { return slots_[started_ % steps_in_flight]; }
  kernels::SampleRow row_of(Draw& draw, kernels::LogitEdit* edits, std::int32_t& used) const noexcept;
  Status fetch_logits(int rows) noexcept;

  kernels::Queue& queue_;
  StepLimits limits_;
  StepRoom room_;
  StepInputs inputs_;
  std::span<float> logits_;
  int vocabulary_;
  std::int32_t spare_block_;
  StepArrays arrays_;
  std::array<Slot, steps_in_flight> slots_;
  std::vector<float> host_logits_;
  std::int64_t started_ = 0, finished_ = 0;
  double idle_seconds_ = 0;
};

}  // namespace lmkit
