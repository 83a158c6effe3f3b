// SPDX-License-Identifier: Apache-2.0
//
// Hidden case that measures the small ops: test_kernels "[bench]". LMKIT_BENCH_THREADS, default 2.
#include <lmkit/kernels/activation.hpp>
#include <lmkit/kernels/add.hpp>
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/rms_norm.hpp>

#include <cstdio>

#include "kernel_bench.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("small ops on SmolLM2-135M rows", "[.][bench]") {
  TaskPool pool(bench_threads());
  const Stream stream = pool.stream();
  Random random;
  const std::int64_t most = 512, hidden = 576, ffn = 1536;
  std::vector<float> x = random.normals(most * hidden), residual = random.normals(most * hidden), weight = random.normals(hidden);
  std::vector<float> out(x.size()), gate_up = random.normals(most * 2 * ffn), product(static_cast<std::size_t>(most * ffn));
  const FileMatrix table(random, WeightFormat::q8_0, 1000, hidden);
  std::vector<std::int32_t> tokens(most);
  for (std::int32_t& token : tokens) token = random.integer(0, 999);

  const auto report = [&](const char* name, auto op) {
    std::printf("%-13s", name);
    for (std::int64_t rows : {std::int64_t{1}, std::int64_t{8}, most}) {
      const double seconds = seconds_of([&] { for (int i = 0; i < 10; ++i) op(rows); }) / 10;
      std::printf("  %3lld rows %8.2f us", static_cast<long long>(rows), 1e6 * seconds);
    }
    std::printf("\n");
  };
  report("rms_norm", [&](std::int64_t rows) { rms_norm(x.data(), weight.data(), out.data(), rows, hidden, 1e-5f, stream); });
  report("add", [&](std::int64_t rows) { add(residual.data(), x.data(), rows, hidden, stream); });
  report("silu_mul", [&](std::int64_t rows) { silu_mul(gate_up.data(), product.data(), rows, ffn, stream); });
  report("embedding", [&](std::int64_t rows) { embedding(table.view, tokens.data(), static_cast<std::int32_t>(rows), out.data(), stream); });
}
