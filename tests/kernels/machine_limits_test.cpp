// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/machine_limits.hpp>

#include "kernel_test.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::test;

TEST_CASE("machine limits are measured on every instruction set, for any size of buffer") {
  TaskPool pool(2);
  on_each_isa([&] {
    for (std::int64_t bytes : {std::int64_t{1}, std::int64_t{100'000}, std::int64_t{4} << 20}) CHECK(read_bandwidth(bytes, pool.stream()) > 1e6);
    CHECK(peak_int8_rate(pool.stream()) > 1e6);
    CHECK(peak_float_rate(pool.stream()) > 1e6);
  });
  CHECK(last_cache_bytes() >= 1 << 16);
}
