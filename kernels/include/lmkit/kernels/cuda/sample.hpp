// SPDX-License-Identifier: Apache-2.0
//
// sample on a GPU: from rows of logits to tokens and their log probabilities, in the order and with the random numbers of
// the CPU's sampler (core/engine/sampler.hpp): bias and penalties -> temperature -> top-k -> top-p -> min-p -> draw with
// Philox(seed, position). The same logits give the same token, but where rounding decides a tie of the running sum.
//
// A block of threads takes a row, or several share a long one. No host synchronisation, capturable: what differs from row to row is
// read from the device.
#pragma once

#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

// How one row is sampled. SamplingParams says what the fields mean.
struct SampleRow {
  std::uint64_t seed = 0;
  std::int64_t position = 0;     // of the token that is drawn
  std::int32_t known = -1;       // >= 0: nothing is drawn or adjusted, this token's log probability is wanted
  float temperature = 0;
  std::int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::int32_t edits_begin = 0;  // of `edits`, end exclusive
  std::int32_t edits_end = 0;
};

// What happens to one token's logit before it is sampled. No two edits of a row name the same token.
struct LogitEdit {
  std::int32_t token = 0;
  std::int32_t in_answer = 0;  // how often it occurs there
  std::int32_t seen = 0;       // in prompt or answer: the repetition penalty applies
  float bias = 0;
};

struct Sampled {
  std::int32_t token = -1;  // -1: the logits are not numbers
  float logprob = 0;        // of the token under the model's own distribution (logits as they came)
};

std::int64_t sample_workspace_bytes(std::int64_t rows, std::int64_t vocabulary) noexcept;

// logits: (rows, vocabulary), changed by edits; rows: (count) and edits on the device; out: (count) on the device.
// workspace: sample_workspace_bytes, 256-byte aligned.
Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, const LogitEdit* edits, Sampled* out,
              void* workspace, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
