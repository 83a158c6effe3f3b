// SPDX-License-Identifier: Apache-2.0
//
// The row kernels on the GPU against float64.
#include "kv_run.hpp"

#include <lmkit/kernels/cuda/activation.hpp>
#include <lmkit/kernels/cuda/add.hpp>
#include <lmkit/kernels/cuda/embedding.hpp>
#include <lmkit/kernels/cuda/rms_norm.hpp>

using namespace lmkit;
using namespace lmkit::kernels::cuda;

namespace {

struct Rows {
  bool is_bf16;
  std::int64_t rows, cols;
  Dtype dtype() const { return is_bf16 ? Dtype::bf16 : Dtype::f16; }
  double tolerance() const { return is_bf16 ? 4e-3 : 5e-4; }
};

const Rows shapes[] = {{true, 1, 576}, {false, 7, 4096}, {true, 33, 8192}, {false, 3, 8}, {true, 5, 14336}};

}  // namespace

TEST_CASE("rms_norm and add agree with float64") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const DeviceStream stream;
  for (const Rows& s : shapes) {
    const std::size_t count = s.rows * s.cols;
    const auto x = random_activations(count, s.is_bf16, 2.0, random), before = random_activations(count, s.is_bf16, 3.0, random);
    const auto weight = random_activations(s.cols, s.is_bf16, 1.0, random);
    const DeviceArray<std::uint16_t> x_device(x), sum(before), weight_device(weight), out(count);
    check(cudaMemset(out.data(), 0xff, 2 * count));
    check(cudaStreamSynchronize(nullptr));
    REQUIRE(rms_norm(x_device.data(), weight_device.data(), out.data(), s.rows, s.cols, 1e-5f, s.dtype(), Run::on(stream)) == Status::ok);
    REQUIRE(add(sum.data(), x_device.data(), s.rows, s.cols, s.dtype(), Run::on(stream)) == Status::ok);
    stream.wait();
    const auto normed = out.download(), after = sum.download();
    RelativeError sum_error, error;
    for (std::int64_t r = 0; r < s.rows; ++r) {
      double squares = 0;
      for (std::int64_t c = 0; c < s.cols; ++c) {
        const std::size_t at = r * s.cols + c;
        const double y = activation(x[at], s.is_bf16);
        sum_error.add(activation(after[at], s.is_bf16), activation(before[at], s.is_bf16) + y);
        squares += y * y;
      }
      for (std::int64_t c = 0; c < s.cols; ++c) {
        const std::size_t at = r * s.cols + c;
        error.add(activation(normed[at], s.is_bf16), activation(x[at], s.is_bf16) / std::sqrt(squares / s.cols + 1e-5) * activation(weight[c], s.is_bf16));
      }
    }
    CHECK(error.value() < s.tolerance());
    CHECK(sum_error.value() < s.tolerance());
  }
}

TEST_CASE("norm_heads agrees with float64 and leaves what is behind the heads") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const DeviceStream stream;
  for (const bool is_bf16 : {false, true})
    for (const std::int64_t dim : {64, 80, 96, 128, 256})
      for (const std::int64_t rows : {1, 77}) {
        const std::int64_t heads = 5, stride = 7 * dim;
        const auto before = random_activations(rows * stride, is_bf16, 2.0, random), weight = random_activations(heads * dim, is_bf16, 1.0, random);
        const DeviceArray<std::uint16_t> x(before), weight_device(weight);
        REQUIRE(norm_heads(x.data(), stride, weight_device.data(), rows, heads, dim, 1e-6f, is_bf16 ? Dtype::bf16 : Dtype::f16, Run::on(stream)) == Status::ok);
        stream.wait();
        const auto after = x.download();
        RelativeError error;
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t h = 0; h < heads; ++h) {
            const std::size_t first = r * stride + h * dim;
            double squares = 0;
            for (std::int64_t c = 0; c < dim; ++c) squares += std::pow(activation(before[first + c], is_bf16), 2);
            for (std::int64_t c = 0; c < dim; ++c)
              error.add(activation(after[first + c], is_bf16),
                        activation(before[first + c], is_bf16) / std::sqrt(squares / dim + 1e-6) * activation(weight[h * dim + c], is_bf16));
          }
          CHECK(std::equal(after.begin() + r * stride + heads * dim, after.begin() + (r + 1) * stride, before.begin() + r * stride + heads * dim));
        }
        CHECK(error.value() < (is_bf16 ? 4e-3 : 5e-4));
      }
}

TEST_CASE("silu_mul agrees with float64") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const DeviceStream stream;
  for (const Rows& s : shapes) {
    const auto x = random_activations(2 * s.rows * s.cols, s.is_bf16, 4.0, random);
    const DeviceArray<std::uint16_t> x_device(x), out(s.rows * s.cols);
    REQUIRE(silu_mul(x_device.data(), out.data(), s.rows, s.cols, s.dtype(), Run::on(stream)) == Status::ok);
    stream.wait();
    const auto y = out.download();
    RelativeError error;
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t c = 0; c < s.cols; ++c) {
        const double gate = activation(x[2 * r * s.cols + c], s.is_bf16), up = activation(x[(2 * r + 1) * s.cols + c], s.is_bf16);
        error.add(activation(y[r * s.cols + c], s.is_bf16), gate / (1 + std::exp(-gate)) * up);
      }
    CHECK(error.value() < s.tolerance());
  }
}

TEST_CASE("embedding takes the rows it is told to") {
  NEEDS_DEVICE();
  std::mt19937_64 random(fresh_seed());
  const DeviceStream stream;
  const int vocabulary = 1000, hidden = 576, count = 77;
  const auto table = random_activations(std::size_t(vocabulary) * hidden, true, 1.0, random);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = std::uniform_int_distribution(0, vocabulary - 1)(random);
  const DeviceArray<std::uint16_t> table_device(table), out(std::size_t(count) * hidden);
  const DeviceArray<std::int32_t> tokens_device(tokens);
  REQUIRE(embedding(table_device.data(), tokens_device.data(), nullptr, count, hidden, out.data(), Run::on(stream)) == Status::ok);
  stream.wait();
  const auto rows = out.download();
  for (int t = 0; t < count; ++t)
    CHECK(std::equal(rows.begin() + t * hidden, rows.begin() + (t + 1) * hidden, table.begin() + std::size_t(tokens[t]) * hidden));
}

TEST_CASE("Row kernels refuse what they cannot take") {
  CHECK(rms_norm(nullptr, nullptr, nullptr, 1, 12, 1e-5f, Dtype::f16, {}) == Status::invalid_argument);
  CHECK(norm_heads(nullptr, 24, nullptr, 1, 1, 12, 1e-5f, Dtype::f16, {}) == Status::invalid_argument);
  CHECK(silu_mul(nullptr, nullptr, 1, 16, Dtype::f32, {}) == Status::invalid_argument);
}
