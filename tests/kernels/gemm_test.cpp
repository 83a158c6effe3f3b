// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/gemm.hpp>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

namespace {

constexpr std::array formats{WeightFormat::f32,  WeightFormat::f16,  WeightFormat::bf16,
                             WeightFormat::q8_0, WeightFormat::q4_0, WeightFormat::q4_1};

bool quantised(WeightFormat format) { return block_of(format).values > 1; }

struct Activation {
  double value;
  double slack;  // one step where the quotient is so close to a tie that either neighbour is right
};

// The promise of gemm.hpp: runs of 32 become integers with scale max|x| / (127 * 128).
constexpr float largest_activation = 127 * 128;

std::vector<Activation> as_multiplied(const float* x, std::int64_t cols, WeightFormat format) {
  std::vector<Activation> out;
  for (std::int64_t c = 0; c < cols; ++c) {
    if (!quantised(format)) {
      out.push_back({x[c], 0});
      continue;
    }
    const float* run = x + c / 32 * 32;
    float peak = 0;
    for (int i = 0; i < 32; ++i) peak = std::max(peak, std::fabs(run[i]));
    const double scale = peak < 0x1p-100f ? 0.0f : peak / largest_activation;
    const double steps = scale == 0 ? 0 : x[c] * double{largest_activation} / peak;
    const bool tie = std::fabs(std::fabs(steps - std::trunc(steps)) - 0.5) < 5e-3;
    out.push_back({scale * std::nearbyint(steps), tie ? scale : 0});
  }
  return out;
}

std::vector<float> multiply(std::span<const PackedMatrix> parts, const std::vector<float>& x, std::int64_t tokens, Stream stream) {
  std::int64_t rows = 0;
  for (const PackedMatrix& part : parts) rows += part.rows();
  const std::int64_t cols = parts.front().cols();
  GuardedBytes workspace(gemm_workspace_bytes(tokens, cols));
  std::vector<float> y = poisoned(tokens * rows);
  gemm(parts, x.data(), cols, tokens, y.data(), rows, workspace.data(), stream);
  CHECK(workspace.intact());
  return y;
}

// Each output must be within float rounding of the exact sum of the quantised product.
void check_product(const std::vector<const FileMatrix*>& parts, const std::vector<float>& x, std::int64_t tokens, Stream stream) {
  std::vector<Packed> packed;
  std::vector<PackedMatrix> matrices;
  for (const FileMatrix* part : parts) {
    packed.emplace_back(part->view, stream);
    matrices.push_back(packed.back().matrix);
  }
  for (Packed& p : packed) CHECK(p.storage.intact());
  const std::vector<float> y = multiply(matrices, x, tokens, stream);
  const std::int64_t cols = parts.front()->view.cols;
  std::size_t at = 0;
  double worst = 0;  // error in units of the rounding bound
  for (std::int64_t t = 0; t < tokens; ++t)
    for (const FileMatrix* part : parts) {
      const std::vector<Activation> a = as_multiplied(x.data() + t * cols, cols, part->view.format);
      for (std::int64_t r = 0; r < part->view.rows; ++r, ++at) {
        double sum = 0, magnitude = 0, slack = 0;
        for (std::int64_t c = 0; c < cols; ++c) {
          const auto [value, either] = a[static_cast<std::size_t>(c)];
          const double weight = weight_at(part->view, r, c);
          sum += weight * value;
          magnitude += std::fabs(weight * value);
          slack += std::fabs(weight * either);
        }
        // float sums over cols / 32 blocks (quantised) or cols terms; the factor leaves room for m + d q splitting
        const double bound = 1e-6 * magnitude + slack + 1e-30;
        const double error = std::fabs(y[at] - sum) / bound;
        worst = error <= worst ? worst : error;  // a NaN becomes the worst
      }
    }
  CHECK(worst <= 4);
}

}  // namespace

TEST_CASE("gemm multiplies every format within float rounding of the quantised product") {
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(2);
  on_each_isa([&] {
    for (WeightFormat format : formats)
      for (std::int64_t rows : {1, 16, 37, 64})
        for (std::int64_t cols : {32, 45, 96, 576})
          for (std::int64_t tokens : {1, 2, 3, 5, 8, 16, 19, 33}) {
            if (rows * cols * tokens > 64 * 576 * 8 && tokens != 33) continue;
            if (cols % 32 != 0 && quantised(format)) continue;
            INFO(block_of(format).name << " " << rows << " x " << cols << ", tokens " << tokens);
            const FileMatrix matrix(random, format, rows, cols);
            check_product({&matrix}, random.normals(tokens * cols), tokens, pool.stream());
          }
  });
}

TEST_CASE("gemm sets parts of different formats side by side") {
  Random random;
  INFO("seed " << random.seed());
  for (int workers : {1, 2, 5}) {
    TaskPool pool(workers);
    on_each_isa([&] {
      const FileMatrix a(random, WeightFormat::q4_1, 40, 64), b(random, WeightFormat::f16, 3, 64), c(random, WeightFormat::q8_0, 17, 64);
      check_product({&a, &b, &c}, random.normals(7 * 64), 7, pool.stream());
    });
  }
}

TEST_CASE("a row's result does not depend on the other rows of the call, bit for bit") {
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(3);
  const std::int64_t cols = 1536, tokens = 77;
  on_each_isa([&] {
    for (WeightFormat format : formats) {
      INFO(block_of(format).name);
      const FileMatrix file(random, format, 50, cols);
      const Packed packed(file.view, pool.stream());
      const std::vector<float> x = random.normals(tokens * cols);
      const std::vector<float> all = multiply({&packed.matrix, 1}, x, tokens, pool.stream());
      std::int64_t differ = 0;
      for (std::int64_t t = 0; t < tokens;) {
        const std::int64_t count = std::min<std::int64_t>(tokens - t, t % 9 + 1);
        const std::vector<float> some_x(x.begin() + t * cols, x.begin() + (t + count) * cols);
        const std::vector<float> some = multiply({&packed.matrix, 1}, some_x, count, pool.stream());
        differ += std::memcmp(some.data(), all.data() + t * 50, some.size() * sizeof(float)) != 0;
        t += count;
      }
      CHECK(differ == 0);
    }
  });
}

TEST_CASE("gemm survives outliers, zeros and scales at the edge of half and float") {
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(2);
  on_each_isa([&] {
    for (WeightFormat format : {WeightFormat::q8_0, WeightFormat::q4_0, WeightFormat::q4_1}) {
      FileMatrix file(random, format, 32, 128);
      file.put(0, Half{0x0001});                                     // the smallest subnormal scale
      file.put(static_cast<std::size_t>(file.view.row_bytes), Half{0x7bff});  // the largest
      if (format == WeightFormat::q8_0)
        for (std::size_t i = 0; i < 32; ++i) file.bytes[2 + i] = std::byte{0x80};  // -128 throughout
      std::vector<float> x = random.normals(3 * 128);
      x[5] = 3e4f;                                       // an outlier flattens its run
      std::fill_n(x.begin() + 32, 32, 0.0f);             // a run of zeros
      std::fill_n(x.begin() + 64, 32, 1e-39f);           // subnormal activations count as zero
      std::fill_n(x.begin() + 96, 32, 1e30f);
      std::fill_n(x.begin() + 128, 32, -127.0f);         // all at the limit: the largest integer sums
      INFO(block_of(format).name);
      check_product({&file}, x, 3, pool.stream());
    }
  });
}

TEST_CASE("a bad activation shows in the result instead of being rounded away") {
  Random random;
  TaskPool pool(1);
  on_each_isa([&] {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (WeightFormat format : formats) {
        const FileMatrix file(random, format, 16, 64);
        const Packed packed(file.view, pool.stream());
        std::vector<float> x = random.normals(64);
        x[40] = bad;
        for (float y : multiply({&packed.matrix, 1}, x, 1, pool.stream())) CHECK_FALSE(std::isfinite(y));
      }
  });
}

TEST_CASE("int8 activations cost less than one percent of the product's size") {
  Random random;
  INFO("seed " << random.seed());
  TaskPool pool(2);
  const std::int64_t rows = 64, cols = 576, tokens = 16;
  for (WeightFormat format : {WeightFormat::q8_0, WeightFormat::q4_0, WeightFormat::q4_1}) {
    const FileMatrix file(random, format, rows, cols);
    const Packed packed(file.view, pool.stream());
    const std::vector<float> x = random.normals(tokens * cols);
    const std::vector<float> y = multiply({&packed.matrix, 1}, x, tokens, pool.stream());
    std::vector<float> exact(y.size());
    gemm_reference(file.view, x.data(), cols, tokens, exact.data(), rows);
    double error = 0, size = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      error += std::pow(double{y[i]} - exact[i], 2);
      size += std::pow(double{exact[i]}, 2);
    }
    // Rounding to steps of max|x| / 16256, max of 32 normals about 2.1: rms 2.1 / 16256 / sqrt(12) = 4e-5
    CHECK(std::sqrt(error / size) < 8e-5);
  }
}
