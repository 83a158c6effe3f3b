// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/add.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("add adds in place") {
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(2);
  on_each_isa([&] {
    for (const std::int64_t cols : {1, 7, 576}) {
      for (const std::int64_t rows : {1, 33}) {
        std::vector<float> sum = random.normals(rows * cols), expected = sum;
        const std::vector<float> x = random.normals(rows * cols);
        for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += x[i];
        add(sum.data(), x.data(), rows, cols, pool.stream());
        CHECK(sum == expected);
      }
    }
  });
}
