// SPDX-License-Identifier: Apache-2.0
//
// Gemm: y = x Wᵀ (+ bias) on a GPU, for 16-bit weights and activations with sums in fp32; and its end, a sum or a gate
// (../linear.hpp).
//
// Few tokens go to kernels of our own that read the weights once at memory speed and do the rest on the way; the others go to cuBLASLt,
// which is a library loaded when a Gemm is opened, so that a program that never does needs none, and a gate to a kernel after it. Which
// algorithm serves a shape is measured once (prepare), and remembered in a file for this GPU and library version.
//
// A row's bits may depend on how many other rows are in the call. Everything is stream-ordered and capturable but prepare.
#pragma once

#include <lmkit/base/dtype.hpp>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/kernels/linear.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace lmkit::kernels::cuda {

// W: (rows, cols) of dtype (f16 or bf16), row-major without gaps, 256-byte aligned; cols and rows multiples of 8, rows of 16 with a gate.
struct GemmShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Dtype dtype = Dtype::bf16;
  Dtype out = Dtype::bf16;  // of y: dtype, or f32 (logits) where it is stored
  LinearEnd end = LinearEnd::store;
  constexpr std::int64_t width() const noexcept { return end == LinearEnd::gate ? rows / 2 : rows; }  // of y
  friend bool operator==(const GemmShape&, const GemmShape&) = default;
};

struct GemmArgs {
  const void* weights = nullptr;  // written before the launch before run's, which may still be under way when they are read
  const void* bias = nullptr;  // (rows) of dtype, or null
  const void* x = nullptr;     // (tokens, cols) of dtype, without gaps, 16-byte aligned
  void* y = nullptr;           // (tokens, width) of out, without gaps, 16-byte aligned
  std::int64_t tokens = 0;
  void* y_scratch = nullptr;  // (tokens, rows) with a gate
};

class Gemm {
 public:
  // Bytes that prepare and run are given on the device, 256-byte aligned.
  static constexpr std::int64_t workspace_bytes = 32 << 20;

  // For the current device. Throws Error(device) when cuBLASLt cannot be loaded: what was looked for, and what provides it.
  Gemm();
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // Chooses how `shape` is run for every number of tokens up to max_tokens: from the file, or by measuring on the given
  // memory (args.weights and args.bias as they will be; x and y are scratch for args.tokens = max_tokens). May be called
  // again for other shapes. Throws Error(device) when nothing can run the shape. [load-time]
  void prepare(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream);

  // shape has been prepared for at least args.tokens. [engine-thread, stream-ordered, capturable]
  Status run(const GemmShape& shape, const GemmArgs& args, void* workspace, Stream stream) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lmkit::kernels::cuda
