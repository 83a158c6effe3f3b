// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/queued_steps.hpp>

#include <algorithm>
#include <utility>

namespace lmkit {
namespace {

template <class T>
T* at(std::byte* inputs, std::int64_t offset) noexcept {
  return reinterpret_cast<T*>(inputs + offset);
}

void copy(const std::vector<std::int32_t>& from, std::int32_t* to) noexcept { std::copy(from.begin(), from.end(), to); }

}  // namespace

StepInputs::StepInputs(const StepLimits& limits) noexcept {
  const auto place = [this](std::int64_t size) { return std::exchange(bytes, bytes + (size + 15) / 16 * 16); };
  constexpr std::int64_t word = sizeof(std::int32_t);
  query_starts = place((limits.sequences + 1) * word);
  kv_lengths = place(limits.sequences * word);
  logit_rows = place(limits.logit_rows * word);
  sample_rows = place(limits.logit_rows * static_cast<std::int64_t>(sizeof(kernels::SampleRow)));
  tokens = place(limits.tokens * word);
  token_sequence = place(limits.tokens * word);
}

QueuedSteps::QueuedSteps(kernels::Queue& queue, const StepLimits& limits, const StepRoom& room, std::span<float> logits,
                         std::int32_t spare_block)
    : queue_(queue),
      limits_(limits),
      room_(room),
      inputs_(limits),
      logits_(logits),
      vocabulary_(static_cast<int>(logits.size() / limits.logit_rows)),
      spare_block_(spare_block) {
  std::byte* const base = room.inputs.data();
  arrays_ = {.tokens = at<std::int32_t>(base, inputs_.tokens),
             .token_sequence = at<std::int32_t>(base, inputs_.token_sequence),
             .query_starts = at<std::int32_t>(base, inputs_.query_starts),
             .kv_lengths = at<std::int32_t>(base, inputs_.kv_lengths),
             .block_tables = room.block_tables.data(),
             .block_table_stride = static_cast<std::int64_t>(room.block_tables.size()) / limits.sequences,
             .logit_rows = at<std::int32_t>(base, inputs_.logit_rows)};
  for (Slot& slot : slots_) {
    slot.inputs = queue.pinned(inputs_.bytes).data();
    slot.block_tables = at<std::int32_t>(queue.pinned(static_cast<std::int64_t>(room.block_tables.size_bytes())).data(), 0);
    slot.edits = at<kernels::LogitEdit>(queue.pinned(static_cast<std::int64_t>(room.edits.size_bytes())).data(), 0);
    slot.drawn = at<kernels::Sampled>(queue.pinned(static_cast<std::int64_t>(room.drawn.size_bytes())).data(), 0);
    slot.draws.reserve(limits.logit_rows);
  }
  queue.draw_into(room.drawn.data());
}

// Each size up to 16, then steps of an eighth of the power of two below: fillers are at most a ninth of a step.
std::vector<int> QueuedSteps::recorded_sizes(int sequences) {
  std::vector<int> sizes;
  for (int size = 1, step = 1; size < sequences; size += step) {
    sizes.push_back(size);
    if (size >= 16 * step) step *= 2;
  }
  sizes.push_back(sequences);
  return sizes;
}

StepPlan QueuedSteps::fillers(int size) const {
  StepPlan plan;
  plan.clear();
  plan.block_table_stride = 1;
  for (std::int32_t i = 0; i < size; ++i) {
    plan.tokens.push_back(0);
    plan.token_sequence.push_back(i);
    plan.query_starts.push_back(i + 1);
    plan.kv_lengths.push_back(1);
    plan.block_tables.push_back(spare_block_);
    plan.logit_rows.push_back(i);
  }
  return plan;
}

Status QueuedSteps::upload(const StepPlan& plan, std::span<const Draw> draws, int size) noexcept {
  Slot& slot = next();
  slot.draws.assign(draws.begin(), draws.end());
  auto* const starts = at<std::int32_t>(slot.inputs, inputs_.query_starts);
  auto* const lengths = at<std::int32_t>(slot.inputs, inputs_.kv_lengths);
  auto* const tokens = at<std::int32_t>(slot.inputs, inputs_.tokens);
  auto* const token_sequence = at<std::int32_t>(slot.inputs, inputs_.token_sequence);
  auto* const logit_rows = at<std::int32_t>(slot.inputs, inputs_.logit_rows);
  auto* const rows = at<kernels::SampleRow>(slot.inputs, inputs_.sample_rows);
  copy(plan.query_starts, starts);
  copy(plan.kv_lengths, lengths);
  copy(plan.tokens, tokens);
  copy(plan.token_sequence, token_sequence);
  copy(plan.logit_rows, logit_rows);
  copy(plan.block_tables, slot.block_tables);
  std::int32_t edits = 0;
  for (std::size_t i = 0; i < draws.size(); ++i) rows[i] = row_of(slot.draws[i], slot.edits, edits);

  const std::int64_t stride = plan.block_table_stride;
  for (std::int32_t i = plan.sequences(); i < size; ++i) {
    starts[i + 1] = i + 1;
    lengths[i] = 1;
    tokens[i] = 0;
    token_sequence[i] = logit_rows[i] = i;
    rows[i] = {.known = 0};
    slot.block_tables[i * stride] = spare_block_;
  }
  constexpr std::int64_t word = sizeof(std::int32_t);
  Status status = queue_.upload(room_.inputs.data(), slot.inputs, inputs_.bytes);
  if (status == Status::ok) {
    status = queue_.upload_rows(room_.block_tables.data(), arrays_.block_table_stride * word, slot.block_tables, stride * word, stride * word,
                                std::max(size, plan.sequences()));
  }
  if (status == Status::ok && edits > 0) status = queue_.upload(room_.edits.data(), slot.edits, edits * static_cast<std::int64_t>(sizeof(kernels::LogitEdit)));
  return status == Status::ok ? queue_.mark(first_kernel_point(started_)) : status;
}

// A row that the host samples is left as it is; the host also samples rows whose edits find no more room.
kernels::SampleRow QueuedSteps::row_of(Draw& draw, kernels::LogitEdit* edits, std::int32_t& used) const noexcept {
  if (draw.known >= 0) return {.known = draw.known};
  const auto& counts = draw.state->counts();
  const auto& bias = draw.params->logit_bias;
  draw.on_host |= draw.logprobs > 0 || counts.size() + bias.size() > room_.edits.size() - static_cast<std::size_t>(used);
  if (draw.on_host) return {.known = 0};

  const SamplingParams& p = *draw.params;
  const std::int32_t begin = used;
  for (const auto& [token, in_answer] : counts) edits[used++] = {.token = token, .in_answer = in_answer, .seen = 1};
  for (const auto& [token, value] : bias) {
    const auto edited = std::find_if(edits + begin, edits + used, [token = token](const kernels::LogitEdit& e) { return e.token == token; });
    if (edited == edits + used) edits[used++] = {.token = token};
    edited->bias += value;
  }
  return {.seed = draw.state->seed(),
          .position = draw.position,
          .temperature = p.temperature,
          .top_k = p.top_k,
          .top_p = p.top_p,
          .min_p = p.min_p,
          .repetition_penalty = p.repetition_penalty,
          .presence_penalty = p.presence_penalty,
          .frequency_penalty = p.frequency_penalty,
          .edits_begin = begin,
          .edits_end = used};
}

Status QueuedSteps::sample(int rows) noexcept {
  return queue_.sample(logits_.data(), rows, vocabulary_, at<kernels::SampleRow>(room_.inputs.data(), inputs_.sample_rows), room_.edits.data(),
                       room_.sample_workspace);
}

Status QueuedSteps::download() noexcept {
  const Slot& slot = next();
  const auto bytes = static_cast<std::int64_t>(slot.draws.size() * sizeof(kernels::Sampled));
  Status status = queue_.mark(last_kernel_point(started_));
  if (status == Status::ok && bytes > 0) status = queue_.download(slot.drawn, room_.drawn.data(), bytes);
  const Status marked = queue_.mark(step_point(started_++));
  return status == Status::ok ? marked : status;
}

Status QueuedSteps::finish(std::span<Sampler> samplers, Stream threads, std::vector<Choice>& choices) noexcept {
  const Slot& slot = slots_[finished_ % steps_in_flight];
  Status status = queue_.wait(step_point(finished_));
  if (finished_ > 0) idle_seconds_ += queue_.seconds_between(last_kernel_point(finished_ - 1), first_kernel_point(finished_));
  ++finished_;
  choices.clear();
  for (std::size_t i = 0; i < slot.draws.size(); ++i) choices.push_back({.token = slot.drawn[i].token, .logprob = slot.drawn[i].logprob, .top = {}});

  const bool on_host = std::ranges::any_of(slot.draws, &Draw::on_host);
  if (status == Status::ok && on_host) status = fetch_logits(static_cast<int>(slot.draws.size()));
  if (status == Status::ok && on_host) {
    threads.parallel_for(static_cast<std::int32_t>(slot.draws.size()), [&](std::int32_t i, std::int32_t worker) {
      const std::span row = std::span(host_logits_).subspan(static_cast<std::size_t>(i) * vocabulary_, vocabulary_);
      if (slot.draws[i].on_host) choices[i] = choose(samplers[worker], row, slot.draws[i]);
    });
  }
  return status;
}

std::span<const float> QueuedSteps::logits() noexcept {
  const auto rows = static_cast<int>(slots_[(started_ - 1) % steps_in_flight].draws.size());
  if (fetch_logits(rows) != Status::ok) return {};
  return std::span(host_logits_).first(static_cast<std::size_t>(rows) * vocabulary_);
}

Status QueuedSteps::fetch_logits(int rows) noexcept {
  host_logits_.resize(static_cast<std::size_t>(rows) * vocabulary_);
  Status status = queue_.download(host_logits_.data(), logits_.data(), static_cast<std::int64_t>(host_logits_.size() * sizeof(float)));
  if (status == Status::ok) status = queue_.mark(fetch_point);
  return status == Status::ok ? queue_.wait(fetch_point) : status;
}

}  // namespace lmkit
