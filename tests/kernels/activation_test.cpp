// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/activation.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("silu_mul is its definition within float rounding, over the whole range of floats") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 3}) {
    TaskPool pool(workers);
    on_each_isa([&] {
      for (std::int64_t cols : {1, 31, 64, 1536})
        for (std::int64_t rows : {1, 9})
          for (float size : {1.0f, 20.0f, 1e5f}) {
            const std::vector<float> gate_up = random.normals(2 * rows * cols, size);
            std::vector<float> out = poisoned(rows * cols);
            silu_mul(gate_up.data(), out.data(), rows, cols, pool.stream());
            double worst = 0;
            for (std::int64_t r = 0; r < rows; ++r)
              for (std::int64_t c = 0; c < cols; ++c) {
                const double gate = gate_up[static_cast<std::size_t>(2 * r * cols + c)];
                const double up = gate_up[static_cast<std::size_t>((2 * r + 1) * cols + c)];
                const double exact = gate / (1 + std::exp(-gate)) * up;
                // a gate below -88 counts as -88 in the exponential: 6e-39 of the product
                const double error = std::fabs(out[static_cast<std::size_t>(r * cols + c)] - exact) / (std::fabs(exact) + 1e-30 * std::max(1.0, std::fabs(gate * up)));
                worst = error <= worst ? worst : error;
              }
            INFO(rows << " x " << cols << ", size " << size);
            CHECK(worst < 1e-6);
          }
    });
  }
}

TEST_CASE("silu_mul passes bad values on") {
  TaskPool pool(1);
  on_each_isa([&] {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> gate_up{nan, 1, 1, nan};
    std::vector<float> out(2);
    silu_mul(gate_up.data(), out.data(), 1, 2, pool.stream());
    CHECK(std::isnan(out[0]));
    CHECK(std::isnan(out[1]));
  });
}
