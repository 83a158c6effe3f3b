// SPDX-License-Identifier: Apache-2.0
//
// What kernel tests share: each instruction set of this machine in turn, fresh random data, weights in file format.
#pragma once

#include <catch.hpp>
#include <lmkit/base/half.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/base/tensor_view.hpp>
#include <lmkit/kernels/cpu_isa.hpp>
#include <lmkit/kernels/gemm.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace lmkit::kernels::test {

// Calls body() under each instruction set this machine has, and puts back the one that was in use.
template <class Body>
void on_each_isa(Body body) {
  const CpuIsa before = cpu_isa();
  for (CpuIsa isa : cpu_isas) {
    if (isa > best_cpu_isa()) continue;
    use_cpu_isa(isa);
    INFO("instruction set " << name_of(isa));
    body();
  }
  use_cpu_isa(before);
}

class Random {
 public:
  Random() : seed_(std::random_device{}()), engine_(seed_) {}
  unsigned seed() const { return seed_; }
  float normal(float deviation = 1) { return std::normal_distribution<float>(0, deviation)(engine_); }
  int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  std::vector<float> normals(std::int64_t count, float deviation = 1) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(deviation);
    return values;
  }

 private:
  unsigned seed_;
  std::mt19937 engine_;
};

// A matrix of random bits in a file's format: scales around 1 / 100 of either sign, every code of the quants.
struct FileMatrix {
  MatrixView view;
  std::vector<std::byte> bytes;

  FileMatrix(Random& random, WeightFormat format, std::int64_t rows, std::int64_t cols) {
    view = {format, rows, cols, MatrixView::packed_row_bytes(format, cols), nullptr};
    bytes.resize(static_cast<std::size_t>(rows * view.row_bytes));
    const WeightBlock block = block_of(format);
    for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(block.bytes)) {
      for (int i = 0; i < block.bytes; ++i) bytes[at + static_cast<std::size_t>(i)] = static_cast<std::byte>(random.integer(0, 255));
      const float value = random.normal(0.01f);
      if (format == WeightFormat::f32)
        put(at, value);
      else if (format == WeightFormat::bf16)
        put(at, to_bfloat16(value));
      else
        put(at, to_half(value));
      if (format == WeightFormat::q4_1) put(at + 2, to_half(random.normal(0.05f)));
    }
    view.data = bytes.data();
  }

  template <class T>
  void put(std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
  }
};

// One value of a matrix, read with nothing but the format's definition.
inline double weight_at(const MatrixView& m, std::int64_t row, std::int64_t col) {
  const WeightBlock block = block_of(m.format);
  const std::byte* in = m.row(row) + col / block.values * block.bytes;
  const auto half = [&](int at) {
    Half h;
    std::memcpy(&h, in + at, 2);
    return double{to_float(h)};
  };
  const int i = static_cast<int>(col % block.values);
  const auto nibble = [&](int at) { return i < 16 ? static_cast<int>(in[at + i]) & 15 : static_cast<int>(in[at + i - 16]) >> 4; };
  switch (m.format) {
    case WeightFormat::f32: {
      float f;
      std::memcpy(&f, in, 4);
      return f;
    }
    case WeightFormat::f16: return half(0);
    case WeightFormat::bf16: {
      BFloat16 b;
      std::memcpy(&b, in, 2);
      return to_float(b);
    }
    case WeightFormat::q8_0: return half(0) * static_cast<std::int8_t>(in[2 + i]);
    case WeightFormat::q4_0: return half(0) * (nibble(2) - 8);
    case WeightFormat::q4_1: return half(0) * nibble(4) + half(2);
  }
  return 0;
}

// Bytes aligned to 64 with a guard behind them that tells if somebody wrote past the end.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::int64_t bytes) : size_(bytes), storage_(static_cast<std::size_t>(bytes) + 64 + guard, std::byte{0xa5}) {}
  std::byte* data() { return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(storage_.data()) + 63) & ~std::uintptr_t{63}); }
  bool intact() {
    for (const std::byte* p = data() + size_; p != storage_.data() + storage_.size(); ++p)
      if (*p != std::byte{0xa5}) return false;
    return true;
  }

 private:
  static constexpr std::size_t guard = 256;
  std::int64_t size_;
  std::vector<std::byte> storage_;
};

// A matrix as gemm reads it.
struct Packed {
  GuardedBytes storage;
  PackedMatrix matrix;
  Packed(const MatrixView& view, Stream stream)
      : storage(PackedMatrix::bytes(view.format, view.rows, view.cols)), matrix(view, storage.data(), stream) {}
};

inline std::vector<float> poisoned(std::int64_t count) {
  return std::vector<float>(static_cast<std::size_t>(count), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace lmkit::kernels::test
