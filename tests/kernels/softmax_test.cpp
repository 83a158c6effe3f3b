// SPDX-License-Identifier: Apache-2.0
#include <catch.hpp>

#include <lmkit/kernels/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

using namespace lmkit::kernels;

TEST_CASE("softmax weights and sums agree with double, for any length") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const int count : {1, 2, 15, 16, 17, 33, 511, 512, 513, 1000, 49152}) {
    std::normal_distribution<float> normal(0, 20);
    std::vector<float> x(static_cast<std::size_t>(count)), w(x.size());
    for (float& value : x) value = normal(random);
    const float top = *std::max_element(x.begin(), x.end());
    REQUIRE(largest(x.data(), count) == top);
    const float scale = 0.3f + static_cast<float>(random() % 100) / 50;
    double expected = 0;
    const double found = softmax_weights(x.data(), count, top, scale, w.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float exponent = (x[i] - top) * scale;  // its rounding is not the kernel's fault
      const double weight = std::exp(static_cast<double>(exponent));
      expected += weight;
      if (weight > 1e-36) REQUIRE(std::fabs(w[i] - weight) <= 4e-7 * weight);
      if (weight < 1e-38) REQUIRE(w[i] == 0);
    }
    REQUIRE(found == Approx(expected).epsilon(1e-6));
    REQUIRE(softmax_weights(x.data(), count, top, scale, nullptr) == found);
    REQUIRE(sum(w.data(), count) == Approx(expected).epsilon(1e-6));
  }
}

TEST_CASE("the largest of a row with a NaN is NaN, wherever it stands") {
  for (const std::size_t size : {1u, 16u, 31u, 100u}) {
    for (std::size_t place = 0; place < size; ++place) {
      std::vector<float> x(size, 1.0f);
      x[place] = std::nanf("");
      REQUIRE(std::isnan(largest(x.data(), static_cast<std::int64_t>(size))));
    }
  }
}
