// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/rms_norm.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

namespace {

// The largest relative error against the definition in double.
double worst_error(const std::vector<float>& x, const std::vector<float>& weight, const std::vector<float>& out, std::size_t cols, float eps) {
  double worst = 0;
  for (std::size_t row = 0; row < x.size(); row += cols) {
    double squares = 0;
    for (std::size_t c = 0; c < cols; ++c) squares += double{x[row + c]} * x[row + c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + double{eps});
    for (std::size_t c = 0; c < cols; ++c) {
      const double exact = x[row + c] * scale * weight[c];
      const double error = exact == 0 ? std::fabs(out[row + c]) : std::fabs(out[row + c] / exact - 1);
      worst = error <= worst ? worst : error;
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("rms_norm is its definition within float rounding") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 3}) {
    TaskPool pool(workers);
    on_each_isa([&] {
      for (std::int64_t cols : {1, 7, 64, 100, 576, 4096})
        for (std::int64_t rows : {1, 2, 65})
          for (float size : {1.0f, 1e-4f, 1e6f}) {
            INFO(rows << " x " << cols << ", size " << size);
            std::vector<float> x = random.normals(rows * cols, size);
            const std::vector<float> weight = random.normals(cols);
            std::vector<float> out = poisoned(rows * cols);
            rms_norm(x.data(), weight.data(), out.data(), rows, cols, 1e-5f, pool.stream());
            CHECK(worst_error(x, weight, out, static_cast<std::size_t>(cols), 1e-5f) < 1e-6);
            const std::vector<float> before = x;
            rms_norm(x.data(), weight.data(), x.data(), rows, cols, 1e-5f, pool.stream());
            CHECK(x == out);
          }
    });
  }
}

TEST_CASE("rms_norm of zeros is zeros") {
  TaskPool pool(1);
  on_each_isa([&] {
    const std::vector<float> x(96, 0.0f), weight(96, 2.0f);
    std::vector<float> out = poisoned(96);
    rms_norm(x.data(), weight.data(), out.data(), 1, 96, 1e-5f, pool.stream());
    CHECK(out == x);
  });
}

TEST_CASE("norm_heads normalises each head with its own weights and touches nothing else") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 3}) {
    TaskPool pool(workers);
    on_each_isa([&] {
      for (std::int64_t dim : {8, 64, 80, 128, 256})
        for (std::int64_t rows : {1, 37}) {
          INFO(rows << " rows, heads of " << dim);
          const std::int64_t heads = 5, stride = 7 * dim;
          const std::vector<float> before = random.normals(rows * stride), weight = random.normals(heads * dim);
          std::vector<float> x = before;
          norm_heads(x.data(), stride, weight.data(), rows, heads, dim, 1e-6f, pool.stream());
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t h = 0; h < heads; ++h) {
              const auto head = [&](const std::vector<float>& of, std::int64_t at) { return std::vector<float>(of.begin() + at, of.begin() + at + dim); };
              const std::int64_t at = r * stride + h * dim;
              CHECK(worst_error(head(before, at), head(weight, h * dim), head(x, at), static_cast<std::size_t>(dim), 1e-6f) < 1e-6);
            }
            CHECK(std::equal(x.begin() + r * stride + heads * dim, x.begin() + (r + 1) * stride, before.begin() + r * stride + heads * dim));
          }
        }
    });
  }
}
