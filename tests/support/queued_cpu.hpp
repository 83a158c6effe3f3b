// SPDX-License-Identifier: Apache-2.0
//
// QueuedCpu: the CPU as a device whose work runs on after a call returns, so that what the engine does with a GPU is tested
// where there is none. Nothing that is enqueued runs before it is waited for: pinned buffers are read late, draws come late.
// Recordings are lists of work that is enqueued again.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/engine/sampler.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/kernels/queue.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace lmkit::test {

class LateQueue final : public kernels::Queue {
 public:
  using Work = std::function<Status()>;

  explicit LateQueue(const lmkit_host* host) : host_(host) {}

  Status enqueue(Work work) {
    enqueued_.push_back(std::move(work));
    return Status::ok;
  }

  std::span<std::byte> pinned(std::int64_t bytes) override {
    return pinned_.emplace_back(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)));
  }
  Status upload(void* to, const void* from, std::int64_t bytes) noexcept override { return copy(to, from, bytes); }
  Status upload_rows(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t row_bytes,
                     std::int64_t rows) noexcept override {
    return enqueue([=] {
      for (std::int64_t r = 0; r < rows; ++r)
        std::memcpy(static_cast<std::byte*>(to) + r * to_stride, static_cast<const std::byte*>(from) + r * from_stride, static_cast<std::size_t>(row_bytes));
      return Status::ok;
    });
  }
  Status download(void* to, const void* from, std::int64_t bytes) noexcept override { return copy(to, from, bytes); }

  Status mark(int point) noexcept override {
    marks_[static_cast<std::size_t>(point)] = run_ + static_cast<std::int64_t>(enqueued_.size());
    most_marks_behind = std::max<int>(most_marks_behind, static_cast<int>(std::ranges::count_if(marks_, [this](std::int64_t at) { return at > run_; })));
    return Status::ok;
  }

  Status wait(int point) noexcept override {
    for (; run_ < marks_[static_cast<std::size_t>(point)]; ++run_) {
      const Work work = std::move(enqueued_.front());
      enqueued_.pop_front();
      Status status = work();
      if (fail_in > 0 && --fail_in == 0) {
        status = Status::device_error;
        host_->fail("the test said so");
      }
      if (status != Status::ok) failed_ = status;
    }
    return std::exchange(failed_, Status::ok);
  }

  // A second, whatever has run in between.
  double seconds_between(int, int) noexcept override { return 1; }

  void draw_into(kernels::Sampled* drawn) noexcept override { drawn_ = drawn; }
  const kernels::Sampled* drawn() const noexcept { return drawn_; }
  std::int64_t sample_workspace_bytes(std::int64_t, std::int64_t) const noexcept override { return 0; }

  Status sample(float* logits, std::int32_t count, std::int64_t vocabulary, const kernels::SampleRow* rows, kernels::LogitEdit* edits,
                void*) noexcept override {
    return enqueue([=, this] {
      for (std::int32_t i = 0; i < count; ++i) drawn_[i] = draw({logits + i * vocabulary, static_cast<std::size_t>(vocabulary)}, rows[i], edits);
      return Status::ok;
    });
  }

  int record(const std::function<Status()>& work) override {
    std::deque<Work> before = std::exchange(enqueued_, {});
    if (work() != Status::ok) throw Error(ErrorKind::device, "the step cannot be recorded");
    recordings_.emplace_back(enqueued_.begin(), enqueued_.end());
    enqueued_ = std::move(before);
    return static_cast<int>(recordings_.size()) - 1;
  }
  Status replay(int recording) noexcept override {
    ++replays;
    for (const Work& work : recordings_[static_cast<std::size_t>(recording)]) enqueued_.push_back(work);
    return Status::ok;
  }

  int fail_in = 0;            // so many pieces of work from now one fails; 0: none does
  int most_marks_behind = 0;  // points that were ahead of what had run, at most
  int replays = 0;

 private:
  Status copy(void* to, const void* from, std::int64_t bytes) {
    return enqueue([=] {
      std::memcpy(to, from, static_cast<std::size_t>(bytes));
      return Status::ok;
    });
  }

  static kernels::Sampled draw(std::span<float> logits, const kernels::SampleRow& row, const kernels::LogitEdit* edits) {
    const float normalizer = log_normalizer(logits);
    if (row.known >= 0) return {row.known, logits[static_cast<std::size_t>(row.known)] - normalizer};
    const std::vector<float> original(logits.begin(), logits.end());
    for (const kernels::LogitEdit& edit : std::span(edits + row.edits_begin, edits + row.edits_end)) {
      float& logit = logits[static_cast<std::size_t>(edit.token)];
      logit += edit.bias;
      if (edit.seen) logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
      logit -= row.frequency_penalty * static_cast<float>(edit.in_answer) + (edit.in_answer > 0 ? row.presence_penalty : 0);
    }
    const SamplingParams params{.temperature = row.temperature, .top_k = row.top_k, .top_p = row.top_p, .min_p = row.min_p, .seed = row.seed};
    const Choice choice = Sampler().choose(logits, params, SamplerState(params, {}), row.position, -1);
    return {choice.token, choice.token < 0 ? 0 : original[static_cast<std::size_t>(choice.token)] - normalizer};
  }

  const lmkit_host* host_;
  std::deque<std::vector<std::byte>> pinned_;
  std::deque<Work> enqueued_;
  std::vector<std::vector<Work>> recordings_;
  std::array<std::int64_t, points> marks_{};
  std::int64_t run_ = 0;  // pieces of work
  Status failed_ = Status::ok;
  kernels::Sampled* drawn_ = nullptr;
};

class QueuedCpu final : public kernels::Device {
 public:
  QueuedCpu(int rank, Stream threads) : cpu_(kernels::open_cpu(rank, threads)), queue_(threads.host) {}

  lmkit_device kind() const noexcept override { return LMKIT_CPU; }
  Dtype dtype() const noexcept override { return cpu_->dtype(); }
  Stream stream() const noexcept override { return cpu_->stream(); }
  LateQueue* queue() noexcept override { return &queue_; }

  std::int64_t room(std::int64_t limit) const override { return cpu_->room(limit); }
  std::int64_t in_use() const noexcept override { return 0; }
  std::int64_t runtime_bytes() const noexcept override { return 0; }
  std::unique_ptr<Arena> allocate(std::int64_t bytes) override { return cpu_->allocate(bytes); }
  void put(void* to, const void* from, std::int64_t bytes) override { cpu_->put(to, from, bytes); }
  bool reads_host_memory() const noexcept override { return true; }
  std::int64_t packed_bytes(std::span<const MatrixView> parts) const noexcept override { return cpu_->packed_bytes(parts); }
  kernels::Linear pack(std::span<const MatrixView> parts, std::byte* storage) override { return cpu_->pack(parts, storage); }
  std::optional<kernels::Linear> linear_of(const MatrixView& table) const noexcept override { return cpu_->linear_of(table); }
  void put_vector(void* to, const MatrixView& vector) override { cpu_->put_vector(to, vector); }
  void prepare(const kernels::Linear&, const kernels::LinearArgs&) override {}
  std::int64_t linear_workspace_bytes(std::int64_t tokens, std::int64_t cols) const noexcept override {
    return cpu_->linear_workspace_bytes(tokens, cols);
  }

  Status embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, void* out) noexcept override {
    return queue_.enqueue([=, this] {
      std::vector<std::int32_t> known(tokens, tokens + count);
      for (std::int32_t& token : known)
        if (token < 0) token = queue_.drawn()[-1 - token].token;
      return cpu_->embedding(table, known.data(), count, out);
    });
  }
  Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->rms_norm(x, weight, out, rows, cols, eps); });
  }
  Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->add(sum, x, rows, cols); });
  }
  Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim,
                    float eps) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->norm_heads(x, stride, weight, rows, heads, dim, eps); });
  }
  Status linear(const kernels::Linear& linear, const kernels::LinearArgs& args) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->linear(linear, args); });
  }
  Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->silu_mul(gate_up, out, rows, cols); });
  }
  Status gather_rows(const void* x, const std::int32_t* rows, std::int32_t count, std::int64_t cols, void* out) noexcept override {
    return queue_.enqueue([=, this] { return cpu_->gather_rows(x, rows, count, cols, out); });
  }

 private:
  std::unique_ptr<kernels::Device> cpu_;
  LateQueue queue_;
};

// A KV cache on a QueuedCpu.
template <KvBackend K>
class QueuedKv {
 public:
  QueuedKv(const KvShape& shape, LateQueue& queue) : kv_(std::make_unique<K>(shape)), queue_(&queue) {}

  std::int64_t block_bytes() const noexcept { return kv_->block_bytes(); }
  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept { return kv_->workspace_bytes(limits); }
  Status append(const KvAppend& args, Stream stream) noexcept {
    return queue_->enqueue([=, kv = kv_.get()] { return kv->append(args, stream); });
  }
  Status attend(const KvAttend& args, Stream stream) noexcept {
    return queue_->enqueue([=, kv = kv_.get()] { return kv->attend(args, stream); });
  }
  Status copy_blocks(const KvCopy& args, Stream stream) noexcept {
    return queue_->enqueue([=, kv = kv_.get()] { return kv->copy_blocks(args, stream); });
  }

 private:
  std::unique_ptr<K> kv_;
  LateQueue* queue_;
};

}  // namespace lmkit::test
