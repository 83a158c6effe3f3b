// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/gemm.hpp>

#include "../../kernels/cpu/gemm_kernels.hpp"

#include <cstring>

#include "kernel_test.hpp"

#if defined(__x86_64__)

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

namespace lmkit::kernels::isa {
struct amx_emulated {};  // amx_emulated_kernels.cpp
}  // namespace lmkit::kernels::isa

namespace {

std::vector<float> product(const GemmKernels& kernels, const PackedMatrix& matrix, const std::vector<float>& x, std::int64_t tokens) {
  const std::int64_t rows = matrix.rows(), cols = matrix.cols(), blocks = (cols + 31) / 32;
  const std::int64_t panels = (tokens + gemm_panel_tokens - 1) / gemm_panel_tokens;
  GuardedBytes workspace(panels * blocks * static_cast<std::int64_t>(sizeof(ActivationBlock) + sizeof(SplitBlock)));
  auto* activations = reinterpret_cast<ActivationBlock*>(workspace.data());
  auto* split = reinterpret_cast<SplitBlock*>(activations + panels * blocks);
  for (std::int64_t p = 0; p < panels; ++p) {
    const std::int64_t first = p * gemm_panel_tokens, count = std::min<std::int64_t>(gemm_panel_tokens, tokens - first);
    if (is_quantised(matrix.format()))
      kernels.quantise(x.data() + first * cols, cols, count, blocks, activations + p * blocks);
    else if (kernels.split)
      kernels.split(x.data() + first * cols, cols, count, cols, split + p * blocks);
  }
  std::vector<float> y = poisoned(tokens * (rows + 1));  // a column that stays as it is
  kernels.multiply({.format = matrix.format(),
                    .weights = matrix.data(),
                    .tiles = (rows + gemm_tile_rows - 1) / gemm_tile_rows,
                    .rows = rows,
                    .cols = cols,
                    .panels = activations,
                    .split = split,
                    .x = x.data(),
                    .x_stride = cols,
                    .tokens = tokens,
                    .y = y.data(),
                    .y_stride = rows + 1});
  CHECK(workspace.intact());
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("matrix registers give the bits of vector registers for quantised weights, emulated and where the machine has them") {
  if (best_cpu_isa() < CpuIsa::avx512) {
    WARN("this machine has no AVX-512: not tested");
    return;
  }
  if (best_cpu_isa() < CpuIsa::amx) WARN("this machine has no AMX: only emulated");
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(1);
  for (WeightFormat format : {WeightFormat::q8_0, WeightFormat::q4_0, WeightFormat::q4_1})
    for (std::int64_t rows : {1, 16, 37})
      for (std::int64_t cols : {32, 64, 96, 576, 1024, 1056, 2112})
        for (std::int64_t tokens : {1, 7, 8, 15, 16, 17, 31, 48}) {
          if (cols > 1000 && tokens % 16 > 1 && rows > 1) continue;
          INFO(block_of(format).name << " " << rows << " x " << cols << ", tokens " << tokens);
          const FileMatrix file(random, format, rows, cols);
          const Packed packed(file.view, pool.stream());
          const std::vector<float> x = random.normals(tokens * cols), y = product(gemm_kernels<isa::avx512>(), packed.matrix, x, tokens);
          CHECK(same_bits(y, product(gemm_kernels<isa::amx_emulated>(), packed.matrix, x, tokens)));
          if (best_cpu_isa() >= CpuIsa::amx) CHECK(same_bits(y, product(gemm_kernels<isa::amx>(), packed.matrix, x, tokens)));
        }
}

TEST_CASE("BF16 weights in matrix registers give a row the same bits in any batch, and lose no bit of an activation") {
  if (best_cpu_isa() < CpuIsa::avx512) {
    WARN("this machine has no AVX-512: not tested");
    return;
  }
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(1);
  for (std::int64_t rows : {1, 16, 33, 50})
    for (std::int64_t cols : {1, 32, 45, 576, 1001})
      for (std::int64_t tokens : {1, 15, 16, 33, 77}) {
        if (cols > 100 && tokens > 33 && rows != 50) continue;
        INFO(rows << " x " << cols << ", tokens " << tokens);
        const FileMatrix file(random, WeightFormat::bf16, rows, cols);
        const Packed packed(file.view, pool.stream());
        const std::vector<float> x = random.normals(tokens * cols), y = product(gemm_kernels<isa::amx_emulated>(), packed.matrix, x, tokens);
        double worst = 0;  // in units of float rounding of so many terms
        bool same = true;
        for (std::int64_t t = 0; t < tokens; ++t) {
          const std::vector<float> one(x.begin() + t * cols, x.begin() + (t + 1) * cols);
          if (t % 5 == 0)
            same &= std::memcmp(product(gemm_kernels<isa::amx_emulated>(), packed.matrix, one, 1).data(), &y[t * (rows + 1)], rows * sizeof(float)) == 0;
          for (std::int64_t r = 0; r < rows; ++r) {
            double sum = 0, magnitude = 1e-30;
            for (std::int64_t c = 0; c < cols; ++c) {
              const double term = weight_at(file.view, r, c) * one[static_cast<std::size_t>(c)];
              sum += term;
              magnitude += std::fabs(term);
            }
            const double error = std::fabs(y[static_cast<std::size_t>(t * (rows + 1) + r)] - sum) / (2e-7 * magnitude);
            worst = error <= worst ? worst : error;  // a NaN becomes the worst
          }
        }
        CHECK(same);
        CHECK(worst <= 1);
        if (best_cpu_isa() >= CpuIsa::amx) CHECK(same_bits(y, product(gemm_kernels<isa::amx>(), packed.matrix, x, tokens)));
      }
}

#endif
