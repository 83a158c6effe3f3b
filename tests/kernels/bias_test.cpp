// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/bias.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("add_bias adds the same values to each row") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 3}) {
    TaskPool pool(workers);
    on_each_isa([&] {
      for (std::int64_t cols : {1, 7, 100, 4608})
        for (std::int64_t rows : {1, 33}) {
          INFO(rows << " x " << cols);
          const std::vector<float> before = random.normals(rows * cols), bias = random.normals(cols);
          std::vector<float> y = before;
          add_bias(y.data(), bias.data(), rows, cols, pool.stream());
          for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == before[i] + bias[i % static_cast<std::size_t>(cols)]);
        }
    });
  }
}
