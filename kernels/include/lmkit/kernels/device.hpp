// SPDX-License-Identifier: Apache-2.0
//
// Device: what one rank computes on. It owns the stream that its work runs on in order, and offers the ops that a forward
// pass is made of. Arrays are row-major, on the device, in its dtype unless said otherwise; ops enqueue, allocate nothing
// and report a failure as a Status, with the reason in host->fail.
//
// On the CPU work is done when a call returns. On a GPU it is not: queue() says what is needed to live with that.
//
// [load-time] slots may be called by one thread before the first step and throw Error; all others are [engine-thread].
#pragma once

#include <lmkit/base/arena.hpp>
#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/base/tensor_view.hpp>
#include <lmkit/kernels/linear.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace lmkit::kernels {

class Queue;

class Device {
 public:
  virtual ~Device() = default;

  virtual lmkit_device kind() const noexcept = 0;
  virtual Dtype dtype() const noexcept = 0;  // of activations, norms and biases
  virtual Stream stream() const noexcept = 0;
  // Null where work is done when a call returns.
  virtual Queue* queue() noexcept = 0;

  // --- memory [load-time]

  // Bytes a memory plan may use, with those that were in use when the device was opened; limit: the most, 0: what is there.
  virtual std::int64_t room(std::int64_t limit) const = 0;
  virtual std::int64_t in_use() const noexcept = 0;
  // Of a plan's bytes, what goes to the device's libraries, kernels and graphs.
  virtual std::int64_t runtime_bytes() const noexcept = 0;
  virtual std::unique_ptr<Arena> allocate(std::int64_t bytes) = 0;
  // Copies from host memory.
  virtual void put(void* to, const void* from, std::int64_t bytes) = 0;

  // --- weights [load-time]

  // Weights are used where they lie in a mapped file, if their format is the device's own.
  virtual bool reads_host_memory() const noexcept = 0;
  virtual std::int64_t packed_bytes(std::span<const MatrixView> parts) const noexcept = 0;
  // storage: packed_bytes(parts), 256-byte aligned; null: only the shape.
  virtual Linear pack(std::span<const MatrixView> parts, std::byte* storage) = 0;
  // The rows of a table that this device packed as one part, where that order serves both.
  virtual std::optional<Linear> linear_of(const MatrixView& table) const noexcept = 0;
  // A vector in the device's dtype: (cols) of a matrix of one row.
  virtual void put_vector(void* to, const MatrixView& vector) = 0;
  // Gets ready for linear() with these arguments and up to args.tokens rows of x; x and y are scratch.
  virtual void prepare(const Linear& linear, const LinearArgs& args) = 0;

  // --- ops

  // out (count, hidden) = rows of a table of any format. tokens: (count) in [0, rows); below 0, on a device with a queue:
  // -1 - t is the token that row t of the last sample() drew.
  virtual Status embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, void* out) noexcept = 0;
  // out = x / sqrt(mean(x²) + eps) * weight, by row. x, out: (rows, cols), may be the same; weight: (cols)
  virtual Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps) noexcept = 0;
  // sum += x: (rows, cols), not overlapping
  virtual Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols) noexcept = 0;
  // Each head of x, in place: head / sqrt(mean(head²) + eps) * its row of weight. x: (rows, heads, dim), `stride` values from
  // row to row; weight: (heads, dim)
  virtual Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim,
                            float eps) noexcept = 0;
  // A product of matrices, with what comes before and after it.
  virtual std::int64_t linear_workspace_bytes(std::int64_t max_tokens, std::int64_t max_cols) const noexcept = 0;
  virtual Status linear(const Linear& linear, const LinearArgs& args) noexcept = 0;
  // gate_up: (rows, 2, cols) -> out: (rows, cols) = silu(gate) * up
  virtual Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols) noexcept = 0;
  // out (count, cols) = the rows of x that `rows` (count) names
  virtual Status gather_rows(const void* x, const std::int32_t* rows, std::int32_t count, std::int64_t cols, void* out) noexcept = 0;
};

// How rank `rank` of this process gets its device; threads: host threads to load with, none when sizes are all that is asked for.
using OpenDevice = std::function<std::unique_ptr<Device>(int rank, Stream threads)>;

std::unique_ptr<Device> open_cpu(int rank, Stream threads);

}  // namespace lmkit::kernels
