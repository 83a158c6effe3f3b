// SPDX-License-Identifier: Apache-2.0
//
// Executor: the ranks of this process as the engine sees them: a StepPlan goes in, choices come out.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/engine/draw.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/model/step_plan.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lmkit {

// [engine-thread]
class Executor {
 public:
  virtual ~Executor() = default;

  // Starts a step on every rank; draws: one for each of the plan's logit rows. If overlaps(), a second step may be started
  // before the first is finished, and a token below 0 in its plan is -1 - the row of the first step that draws it.
  virtual void start(const StepPlan& plan, std::span<const Draw> draws) noexcept = 0;
  virtual bool overlaps() const noexcept = 0;
  // Waits for the oldest step that was started: a choice for each of its draws.
  virtual Status finish(std::vector<Choice>& choices) noexcept = 0;
  // Why the last step failed.
  virtual std::string failure() const = 0;

  // Between one step's work on the device and the next one's, so far; 0 where steps do not run on a queue.
  virtual double idle_seconds() const noexcept = 0;

  // (logit rows, vocabulary) of the step started last, on the host and as the model made them, if its draws are on_host.
  virtual std::span<const float> logits() noexcept = 0;

  // For tests and diagnosis.
  virtual int ranks() const noexcept = 0;
  virtual std::span<std::byte> kv_pool(int rank) noexcept = 0;  // on the rank's device
  virtual kernels::Device& device(int rank) noexcept = 0;
  virtual std::int64_t allocated(int rank) const noexcept = 0;  // bytes, pool included
};

}  // namespace lmkit
