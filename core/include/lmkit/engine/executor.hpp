// SPDX-License-Identifier: Apache-2.0
//
// Executor: the ranks of this process as the engine sees them: a StepPlan goes in, logits come out.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/model/step_plan.hpp>

#include <cstddef>
#include <span>
#include <string>

namespace lmkit {

// [engine-thread]
class Executor {
 public:
  virtual ~Executor() = default;

  // Runs the step on every rank and waits for all of them.
  virtual Status run(const StepPlan& plan) noexcept = 0;
  // Why the last run failed.
  virtual std::string failure() const = 0;

  // (logit rows of the last step, vocabulary) on rank 0; the engine may write to them.
  virtual std::span<float> logits() noexcept = 0;
  // Rank 0's threads, idle between steps.
  virtual Stream threads() noexcept = 0;

  // For tests and diagnosis.
  virtual int ranks() const noexcept = 0;
  virtual std::span<std::byte> kv_pool(int rank) noexcept = 0;
  virtual std::int64_t allocated(int rank) const noexcept = 0;  // bytes, pool included
};

}  // namespace lmkit
