// SPDX-License-Identifier: Apache-2.0
#include "cuda_device.hpp"

#include "cuda_queue.hpp"
#include "weight_upload.hpp"

#include <lmkit/kernels/cuda/activation.hpp>
#include <lmkit/kernels/cuda/add.hpp>
#include <lmkit/kernels/cuda/embedding.hpp>
#include <lmkit/kernels/cuda/gemm.hpp>
#include <lmkit/kernels/cuda/rms_norm.hpp>

#include <algorithm>

namespace lmkit::kernels::cuda {
namespace {

class DeviceArena final : public Arena {
 public:
  explicit DeviceArena(std::int64_t bytes) : Arena(reserve(bytes), bytes) {}
  ~DeviceArena() override { cudaFree(data()); }

 private:
  static std::byte* reserve(std::int64_t bytes) {
    void* memory = nullptr;
    if (cudaMalloc(&memory, static_cast<std::size_t>(bytes)) != cudaSuccess) {
      cudaGetLastError();
      throw Error(ErrorKind::memory, "the GPU refused " + std::to_string(bytes) + " bytes", "room for the memory plan",
                  "a smaller --device-memory-limit, --session-len or --max-batch-size, or ending other programs on the GPU");
    }
    return static_cast<std::byte*>(memory);
  }
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int gpu, Dtype dtype, Stream threads)
      : gpu_(gpu), dtype_(dtype), queue_(gpu, threads.host), upload_(queue_, dtype, threads), in_use_(memory().used) {}
  ~CudaDevice() override { cudaSetDevice(gpu_); }

  lmkit_device kind() const noexcept override { return LMKIT_CUDA; }
  Dtype dtype() const noexcept override { return dtype_; }
  Stream stream() const noexcept override { return queue_.stream(); }
  Queue* queue() noexcept override { return &queue_; }

  std::int64_t room(std::int64_t limit) const override {
    const std::int64_t there = in_use_ + memory().free;
    return limit > 0 ? std::min(limit, there) : there;
  }
  std::int64_t in_use() const noexcept override { return in_use_; }
  // cuBLASLt, code that is loaded when it first runs, recorded steps: 34 to 40 MiB for an 8B model on an H200
  std::int64_t runtime_bytes() const noexcept override { return std::int64_t{64} << 20; }

  std::unique_ptr<Arena> allocate(std::int64_t bytes) override {
    require(cudaSetDevice(gpu_), "choosing the GPU");
    return std::make_unique<DeviceArena>(bytes);
  }

  void put(void* to, const void* from, std::int64_t bytes) override {
    require(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice), "copying to the GPU");
    require(cudaStreamSynchronize(nullptr), "copying to the GPU");  // which may go on when cudaMemcpy has returned
  }

  bool reads_host_memory() const noexcept override { return false; }

  std::int64_t packed_bytes(std::span<const MatrixView> parts) const noexcept override {
    std::int64_t bytes = 0;
    for (const MatrixView& part : parts) bytes += part.rows * part.cols * 2;
    return bytes;
  }

  Linear pack(std::span<const MatrixView> parts, std::byte* storage) override {
    Linear linear;
    for (const MatrixView& part : parts) {
      if (storage) upload_.put(part, storage + linear.rows * part.cols * 2);
      linear.rows += part.rows;
      linear.cols = part.cols;
    }
    if (linear.rows == 0 || linear.cols == 0) return linear;
    if (linear.rows % 8 != 0 || linear.cols % 8 != 0) {
      throw Error(ErrorKind::model, "a matrix of " + std::to_string(linear.rows) + " x " + std::to_string(linear.cols),
                  "multiples of 8 on a GPU", "--device cpu");
    }
    linear.parts[0] = PackedMatrix::packed_already(format(), linear.rows, linear.cols, storage);
    linear.part_count = 1;
    return linear;
  }

  std::optional<Linear> linear_of(const MatrixView& table) const noexcept override {
    Linear linear{.rows = table.rows, .cols = table.cols, .part_count = 1};
    linear.parts[0] = PackedMatrix::packed_already(format(), table.rows, table.cols, table.data);
    return linear;
  }

  void put_vector(void* to, const MatrixView& vector) override { upload_.put(vector, static_cast<std::byte*>(to)); }

  void prepare(const Linear& linear, const LinearArgs& args) override {
    upload_.release();
    if (!gemm_) gemm_ = std::make_unique<Gemm>();
    if (linear.part_count > 0) gemm_->prepare(shape_of(linear, args), arguments_of(linear, args), args.workspace, stream());
  }

  Status embedding(const MatrixView& table, const std::int32_t* tokens, std::int32_t count, void* out) noexcept override {
    return cuda::embedding(table.data, tokens, queue_.drawn(), count, table.cols, out, stream());
  }

  Status rms_norm(const void* x, const void* weight, void* out, std::int64_t rows, std::int64_t cols, float eps) noexcept override {
    return cuda::rms_norm(x, weight, out, rows, cols, eps, dtype_, stream());
  }

  Status add(void* sum, const void* x, std::int64_t rows, std::int64_t cols) noexcept override {
    return cuda::add(sum, x, rows, cols, dtype_, stream());
  }

  Status norm_heads(void* x, std::int64_t stride, const void* weight, std::int64_t rows, std::int64_t heads, std::int64_t dim,
                    float eps) noexcept override {
    return cuda::norm_heads(x, stride, weight, rows, heads, dim, eps, dtype_, stream());
  }

  std::int64_t linear_workspace_bytes(std::int64_t, std::int64_t) const noexcept override { return Gemm::workspace_bytes; }

  Status linear(const Linear& linear, const LinearArgs& args) noexcept override {
    if (linear.part_count > 0) return multiply(linear, args);
    const auto bytes = static_cast<std::size_t>(args.tokens * linear.rows * size_of(args.out));  // a rank's empty part, which is stored
    return outcome(cudaMemsetAsync(args.y, 0, bytes, queue_.cuda_stream()), stream());
  }

  Status silu_mul(const void* gate_up, void* out, std::int64_t rows, std::int64_t cols) noexcept override {
    return cuda::silu_mul(gate_up, out, rows, cols, dtype_, stream());
  }

  Status gather_rows(const void* x, const std::int32_t* rows, std::int32_t count, std::int64_t cols, void* out) noexcept override {
    return cuda::embedding(x, rows, nullptr, count, cols, out, stream());
  }

 private:
  struct Memory {
    std::int64_t used, free;  // of the GPU, by all programs
  };
  static Memory memory() {
    std::size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
    return {static_cast<std::int64_t>(total - free), static_cast<std::int64_t>(free)};
  }

  Status multiply(const Linear& linear, const LinearArgs& args) noexcept {
    GemmArgs arguments = arguments_of(linear, args);
    if (args.norm) {
      const Status status = rms_norm(args.x, args.norm, args.x_scratch, args.tokens, linear.cols, args.eps);
      if (status != Status::ok) return status;
      arguments.x = args.x_scratch;
    }
    return gemm_->run(shape_of(linear, args), arguments, args.workspace, stream());
  }

  WeightFormat format() const noexcept { return dtype_ == Dtype::f16 ? WeightFormat::f16 : WeightFormat::bf16; }
  GemmShape shape_of(const Linear& linear, const LinearArgs& args) const noexcept {
    return {linear.rows, linear.cols, dtype_, args.out, args.end};
  }
  static GemmArgs arguments_of(const Linear& linear, const LinearArgs& args) noexcept {
    return {linear.parts[0].data(), linear.bias, args.x, args.y, args.tokens, args.y_scratch};
  }

  int gpu_;
  Dtype dtype_;
  CudaQueue queue_;
  WeightUpload upload_;
  std::int64_t in_use_;  // when it was opened, with this process's context
  std::unique_ptr<Gemm> gemm_;
};

}  // namespace

std::unique_ptr<Device> open_gpu(int gpu, Dtype dtype, Stream threads) { return std::make_unique<CudaDevice>(gpu, dtype, threads); }

}  // namespace lmkit::kernels::cuda
