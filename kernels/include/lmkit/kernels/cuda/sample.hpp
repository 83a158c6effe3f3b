// SPDX-License-Identifier: Apache-2.0
//
// sample on a GPU: from rows of logits to tokens and their log probabilities, in the order and with the random numbers of
// the CPU's sampler (core/engine/sampler.hpp): bias and penalties -> temperature -> top-k -> top-p -> min-p -> draw with
// Philox(seed, position). The same logits give the same token, but where rounding decides a tie of the running sum.
//
// Three launches, whatever the rows ask for: the row's largest logit and normaliser; the threshold below which no token can
// be drawn; the draw among those above it. Several blocks of threads share a row when rows are few. A greedy row is read
// once, a drawn one three times. No host synchronisation, capturable: what differs from row to row is read from the device.
// No atomic addition of floats, so the same input gives the same bits.
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
  float bias = 0;              // -inf: never this token; after sample(): the logit as it came
};

struct Sampled {
  std::int32_t token = -1;  // -1: the logits are not numbers
  float logprob = 0;        // of the token under the model's own distribution (logits as they came)
};

std::int64_t sample_workspace_bytes(std::int64_t rows, std::int64_t vocabulary) noexcept;

// logits: (count, vocabulary), changed by edits; rows: (count) and edits on the device, the edits used up; out: (count) on
// the device. workspace: sample_workspace_bytes, 256-byte aligned, its content of no account. vocabulary: at most 2^20.
Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, LogitEdit* edits, Sampled* out,
              void* workspace, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
