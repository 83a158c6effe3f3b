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
  const std::int64_t blocks = matrix.cols() / 32, rows = matrix.rows(), panels = (tokens + gemm_panel_tokens - 1) / gemm_panel_tokens;
  GuardedBytes workspace(gemm_workspace_bytes(tokens, matrix.cols()));
  auto* activations = reinterpret_cast<ActivationBlock*>(workspace.data());
  for (std::int64_t p = 0; p < panels; ++p)
    kernels.quantise(x.data() + p * gemm_panel_tokens * matrix.cols(), matrix.cols(),
                     std::min<std::int64_t>(gemm_panel_tokens, tokens - p * gemm_panel_tokens), blocks, activations + p * blocks);
  std::vector<float> y = poisoned(tokens * (rows + 1));  // a column that stays as it is
  kernels.multiply({.format = matrix.format(),
                    .weights = matrix.data(),
                    .tiles = (rows + gemm_tile_rows - 1) / gemm_tile_rows,
                    .rows = rows,
                    .cols = matrix.cols(),
                    .panels = activations,
                    .x = x.data(),
                    .x_stride = matrix.cols(),
                    .tokens = tokens,
                    .y = y.data(),
                    .y_stride = rows + 1});
  CHECK(workspace.intact());
  return y;
}

}  // namespace

TEST_CASE("matrix registers give the bits of vector registers, emulated and where the machine has them") {
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
          GuardedBytes storage(PackedMatrix::bytes(format, rows, cols));
          const PackedMatrix matrix(file.view, storage.data(), pool.stream());
          const std::vector<float> x = random.normals(tokens * cols), y = product(gemm_kernels<isa::avx512>(), matrix, x, tokens);
          const auto same = [&](const std::vector<float>& other) { return std::memcmp(other.data(), y.data(), y.size() * sizeof(float)) == 0; };
          CHECK(same(product(gemm_kernels<isa::amx_emulated>(), matrix, x, tokens)));
          if (best_cpu_isa() >= CpuIsa::amx) CHECK(same(product(gemm_kernels<isa::amx>(), matrix, x, tokens)));
        }
}

#endif
