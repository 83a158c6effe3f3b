// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/embedding.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("embedding expands the rows that were asked for, in every format") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 3}) {
    TaskPool pool(workers);
    for (WeightFormat format : {WeightFormat::f32, WeightFormat::f16, WeightFormat::bf16, WeightFormat::q8_0, WeightFormat::q4_0,
                                WeightFormat::q4_1})
      for (std::int64_t cols : {32, 96, 576}) {
        INFO(block_of(format).name << ", cols " << cols);
        const FileMatrix table(random, format, 23, cols);
        const std::vector<std::int32_t> tokens{22, 0, 7, 7, 1};
        std::vector<float> out = poisoned(static_cast<std::int64_t>(tokens.size()) * cols);
        embedding(table.view, tokens.data(), static_cast<std::int32_t>(tokens.size()), out.data(), pool.stream());
        double worst = 0;
        for (std::size_t t = 0; t < tokens.size(); ++t)
          for (std::int64_t c = 0; c < cols; ++c) {
            const double exact = weight_at(table.view, tokens[t], c);
            const double error = std::fabs(out[t * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)] - exact);
            worst = error <= worst ? worst : error;
          }
        CHECK(worst <= 1e-7);  // d q + m rounds once or twice at a size below 1
      }
  }
}
