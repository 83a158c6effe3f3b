// SPDX-License-Identifier: Apache-2.0
//
// Hidden cases that measure gemm against the machine's limits: test_kernels "[bench]". LMKIT_BENCH_THREADS, default 2.
#include <lmkit/kernels/gemm.hpp>
#include <lmkit/kernels/machine_limits.hpp>

#include <cstdio>
#include <cstdlib>

#include "kernel_bench.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

namespace {

struct Shape {
  const char* name;
  WeightFormat format;
  std::int64_t rows, cols;
};

// SmolLM2-135M, and one layer's worth of other formats
constexpr Shape shapes[] = {
    {"qkv", WeightFormat::q4_1, 960, 576},      {"o", WeightFormat::q4_1, 576, 576},      {"gate_up", WeightFormat::q4_1, 3072, 576},
    {"down", WeightFormat::q4_1, 576, 1536},    {"output", WeightFormat::q8_0, 49152, 576}, {"q4_0", WeightFormat::q4_0, 4096, 4096},
    {"q8_0", WeightFormat::q8_0, 4096, 4096},   {"q4_1", WeightFormat::q4_1, 4096, 4096}, {"bf16", WeightFormat::bf16, 2048, 2048},
    {"f16", WeightFormat::f16, 2048, 2048},     {"f32", WeightFormat::f32, 2048, 2048},
};

void bench_shape(const Shape& shape, double memory, double int8, double floats, Stream stream) {
  Random random;
  const FileMatrix file(random, shape.format, shape.rows, shape.cols);
  const std::int64_t bytes = PackedMatrix::bytes(shape.format, shape.rows, shape.cols);
  const std::int64_t copies = std::max<std::int64_t>(1, 3 * last_cache_bytes() / bytes);
  std::byte* storage = static_cast<std::byte*>(std::aligned_alloc(1 << 21, static_cast<std::size_t>((copies * bytes + (1 << 21) - 1) >> 21 << 21)));
  std::vector<PackedMatrix> matrices;
  for (std::int64_t i = 0; i < copies; ++i) matrices.emplace_back(file.view, storage + i * bytes, stream);

  constexpr std::int64_t most = 512;
  const std::vector<float> x = random.normals(most * shape.cols);
  std::vector<float> y = poisoned(most * shape.rows);
  GuardedBytes workspace(gemm_workspace_bytes(most, shape.cols));
  const auto run = [&](std::int64_t tokens, const PackedMatrix& m) {
    gemm({&m, 1}, x.data(), shape.cols, tokens, y.data(), shape.rows, workspace.data(), stream);
  };
  const double one = seconds_of([&] { for (const PackedMatrix& m : matrices) run(1, m); }) / static_cast<double>(copies);
  const double four = seconds_of([&] { for (const PackedMatrix& m : matrices) run(4, m); }) / static_cast<double>(copies);
  const double many = shape.rows > 10000 ? 0 : seconds_of([&] { run(most, matrices[0]); });
  const double peak = block_of(shape.format).values > 1 ? int8 : floats;
  const double rate = many > 0 ? 2.0 * most * static_cast<double>(shape.rows * shape.cols) / many : 0;
  std::printf("%-8s %-4s %5lld x %4lld  1 token %7.1f us %5.1f GB/s (%3.0f %%)  4 tokens %7.1f us  512 tokens %8.1f us %6.0f GOP/s (%3.0f %%)\n",
              shape.name, block_of(shape.format).name, static_cast<long long>(shape.rows), static_cast<long long>(shape.cols), 1e6 * one,
              static_cast<double>(bytes) / one / 1e9, 100 * static_cast<double>(bytes) / one / memory, 1e6 * four, 1e6 * many, rate / 1e9,
              100 * rate / peak);
  std::free(storage);
}

// Whole passes over a model's matrices: what a token costs if nothing else did.
void bench_model(Stream stream) {
  Random random;
  std::vector<std::vector<std::byte>> storages;
  std::vector<PackedMatrix> layer;
  std::int64_t bytes = 0;
  const auto pack = [&](const Shape& shape, int copies) {
    const FileMatrix file(random, shape.format, shape.rows, shape.cols);
    for (int i = 0; i < copies; ++i) {
      const std::int64_t size = PackedMatrix::bytes(shape.format, shape.rows, shape.cols);
      std::vector<std::byte>& storage = storages.emplace_back(static_cast<std::size_t>(size + 64));
      layer.emplace_back(file.view, reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(storage.data()) + 63) & ~std::uintptr_t{63}), stream);
      bytes += size;
    }
  };
  for (int s = 0; s < 4; ++s) pack(shapes[s], 30);
  pack(shapes[4], 1);
  const std::int64_t most = 512, widest = 1536;
  const std::vector<float> x = random.normals(most * widest);
  std::vector<float> y = poisoned(most * 3072);
  GuardedBytes workspace(gemm_workspace_bytes(most, widest));
  const auto pass = [&](std::int64_t tokens) {
    for (int l = 0; l < 30; ++l)
      for (std::size_t s = 0; s < 4; ++s) {
        const PackedMatrix& m = layer[30 * s + static_cast<std::size_t>(l)];
        gemm({&m, 1}, x.data(), m.cols(), tokens, y.data(), m.rows(), workspace.data(), stream);
      }
    gemm({&layer.back(), 1}, x.data(), 576, 1, y.data(), 49152, workspace.data(), stream);
  };
  const double one = seconds_of([&] { pass(1); }), many = seconds_of([&] { pass(most); });
  std::printf("SmolLM2-135M matrices: decode %.3f ms = %.0f tokens/s, %.1f GB/s; prefill 512 %.1f ms = %.0f tokens/s\n", 1e3 * one, 1 / one,
              static_cast<double>(bytes) / one / 1e9, 1e3 * many, most / many);
}

}  // namespace

TEST_CASE("gemm shapes against the machine", "[.][bench]") {
  TaskPool pool(bench_threads());
  const Stream stream = pool.stream();
  const double memory = read_bandwidth(8 * last_cache_bytes(), stream), int8 = peak_int8_rate(stream), floats = peak_float_rate(stream);
  std::printf("%s, %d threads: reads %.1f GB/s from memory, %.1f from half the last cache; int8 %.0f GOP/s, float %.0f GFLOP/s\n",
              name_of(cpu_isa()), stream.workers(), memory / 1e9, read_bandwidth(last_cache_bytes() / 2, stream) / 1e9, int8 / 1e9,
              floats / 1e9);
  for (const Shape& shape : shapes) bench_shape(shape, memory, int8, floats, stream);
}

TEST_CASE("matrices of a model one after the other", "[.][bench]") {
  TaskPool pool(bench_threads());
  bench_model(pool.stream());
}

TEST_CASE("an empty parallel loop", "[.][bench]") {
  TaskPool pool(bench_threads());
  const Stream stream = pool.stream();
  const double seconds = seconds_of([&] {
    for (int i = 0; i < 100; ++i) stream.parallel_for(stream.workers(), [](std::int32_t, int) {});
  });
  std::printf("fork and join of %d threads: %.2f us\n", stream.workers(), 1e6 * seconds / 100);
}
