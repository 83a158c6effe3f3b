// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/memory.hpp>
#include <lmkit/kernels/activation.hpp>
#include <lmkit/kernels/add.hpp>
#include <lmkit/kernels/bias.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/rms_norm.hpp>

#include <algorithm>
#include <cstring>

namespace lmkit::kernels {
namespace {

constexpr std::int64_t aligned(std::int64_t bytes) noexcept { return (bytes + 63) / 64 * 64; }

const float* floats(const void* x) noexcept { return static_cast<const float*>(x); }
float* floats(void* x) noexcept { return static_cast<float*>(x); }

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(Stream threads) noexcept : threads_(threads) {}

  lmkit_device kind() const noexcept override { return LMKIT_CPU; }
  Dtype dtype() const noexcept override { return Dtype::f32; }
  Stream stream() const noexcept override { return threads_; }
  Queue* queue() noexcept override { return nullptr; }

  std::int64_t room(std::int64_t limit) const override { return limit > 0 ? std::min(limit, available_memory()) : available_memory(); }
  std::int64_t in_use() const noexcept override { return 0; }
  std::int64_t runtime_bytes() const noexcept override { return 0; }
  std::unique_ptr<Arena> allocate(std::int64_t bytes) override { return std::make_unique<HostArena>(bytes); }
  void put(void* to, const void* from, std::int64_t bytes) override { std::memcpy(to, from, static_cast<std::size_t>(bytes)); }

  bool reads_host_memory() const noexcept override { return true; }

  std::int64_t packed_bytes(std::span<const MatrixView> parts) const noexcept override {
    std::int64_t bytes = 0;
    for (const MatrixView& part : parts) bytes += aligned(PackedMatrix::bytes(part.format, part.rows, part.cols));
    return bytes;
  }

  Linear pack(std::span<const MatrixView> parts, std::byte* storage) override {
    Linear linear;
    for (const MatrixView& part : parts) {
      linear.rows += part.rows;
      linear.cols = part.cols;
      if (part.rows == 0 || part.cols == 0) continue;
      PackedMatrix& packed = linear.parts[linear.part_count++];
      if (!storage) continue;
      packed = PackedMatrix(part, storage, threads_);
      storage += aligned(PackedMatrix::bytes(part.format, part.rows, part.cols));
    }
    return linear;
  }

  std::optional<Linear> linear_of(const MatrixView&) const noexcept override { return std::nullopt; }
  void put_vector(void* to, const MatrixView& vector) override { expand_row(vector, 0, floats(to)); }
  void prepare(const Linear&, const LinearArgs&) override {}

  Status embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, void* out) noexcept override {
    kernels::embedding(table, tokens, count, floats(out), threads_);
    return Status::ok;
  }

  Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps) noexcept override {
    kernels::rms_norm(floats(x), floats(weight), floats(out), rows, cols, eps, threads_);
    return Status::ok;
  }

  Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols) noexcept override {
    kernels::add(floats(sum), floats(x), rows, cols, threads_);
    return Status::ok;
  }

  Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim,
                    float eps) noexcept override {
    kernels::norm_heads(floats(x), stride, floats(weight), rows, heads, dim, eps, threads_);
    return Status::ok;
  }

  std::int64_t linear_workspace_bytes(std::int64_t max_tokens, std::int64_t max_cols) const noexcept override {
    return gemm_workspace_bytes(max_tokens, max_cols);
  }

  Status linear(const Linear& linear, const LinearArgs& args) noexcept override {
    if (args.norm) kernels::rms_norm(floats(args.x), floats(args.norm), floats(args.x_scratch), args.tokens, linear.cols, args.eps, threads_);
    void* const product = args.end == LinearEnd::store ? args.y : args.y_scratch;
    multiply(linear, floats(args.norm ? args.x_scratch : args.x), args.tokens, floats(product), args.workspace);
    switch (args.end) {
      case LinearEnd::store: return Status::ok;
      case LinearEnd::add: return add(args.y, product, args.tokens, linear.rows);
      case LinearEnd::gate: return silu_mul(product, args.y, args.tokens, linear.rows / 2);
    }
    return Status::invalid_argument;
  }

  Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols) noexcept override {
    if (cols > 0) kernels::silu_mul(floats(gate_up), floats(out), rows, cols, threads_);
    return Status::ok;
  }

  Status gather_rows(const void* x, const std::int32_t* rows, std::int32_t count, std::int64_t cols, void* out) noexcept override {
    for (std::int32_t i = 0; i < count; ++i) std::copy_n(floats(x) + rows[i] * cols, cols, floats(out) + i * cols);
    return Status::ok;
  }

 private:
  void multiply(const Linear& linear, const float* x, std::int64_t tokens, float* y, std::byte* workspace) noexcept {
    const std::span parts(linear.parts.data(), static_cast<std::size_t>(linear.part_count));
    if (parts.empty()) std::memset(y, 0, static_cast<std::size_t>(tokens * linear.rows) * sizeof(float));
    else if (tokens > 0) gemm(parts, x, linear.cols, tokens, y, linear.rows, workspace, threads_);
    if (linear.bias) add_bias(y, floats(linear.bias), tokens, linear.rows, threads_);
  }

  Stream threads_;
};

}  // namespace

std::unique_ptr<Device> open_cpu(int, Stream threads) { return std::make_unique<CpuDevice>(threads); }

}  // namespace lmkit::kernels
