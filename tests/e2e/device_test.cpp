// SPDX-License-Identifier: Apache-2.0
//
// --device, --dtype and --load-format as a user meets them, with a GPU and without.
#include "cli.hpp"

#include <boost/json.hpp>
#include <catch.hpp>
#include <lmkit/builtin/cuda.hpp>

#include <string>
#include <vector>

using namespace lmkit::test;

namespace {

constexpr const char* llama_8b = LMKIT_TEST_CONFIGS "/Llama-3.1-8B";

}  // namespace

TEST_CASE("a GPU that is asked for and is not there is an error of its own kind that names the way out", "[device]") {
  if (lmkit::has_gpu()) return;
  const Outcome outcome = cli({"run", "--device", "cuda", "hi"});
  INFO(outcome.err);
  CHECK(outcome.code == 6);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Catch::Contains("--device cpu"));
}

TEST_CASE("a device or type that does not exist is a usage error", "[device]") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"run", "--device", "gpu", "hi"}, {"run", "--dtype", "f64", "hi"},
                                                {"run", "--load-format", "onnx", "hi"}}) {
    const Outcome outcome = cli(words);
    INFO(outcome.err);
    CHECK(outcome.code == 2);
    CHECK_THAT(outcome.err, Catch::Contains(words[2]));
  }
}

TEST_CASE("the start-up line says what the model runs on", "[device]") {
  const Outcome outcome = cli({"run", "--device", "cpu", "-n", "1", "hi"});
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err, Catch::Contains("on the CPU"));
}

TEST_CASE("ranks that are CPU threads keep to the CPU, and say so when a GPU is asked for", "[device]") {
  const Outcome by_itself = cli({"run", "--device", "auto", "--tp", "3", "-n", "1", "hi"});
  CHECK(by_itself.code == 0);
  CHECK_THAT(by_itself.err, Catch::Contains("tp-threads(3)") && Catch::Contains("on the CPU"));
  CHECK(cli({"run", "--device", "cuda", "--tp", "3", "-n", "1", "hi"}).code == 6);
}

TEST_CASE("a config.json without weights is planned, and a model of its shape is run with random ones", "[device]") {
  const Outcome planned = cli({"plan", "--device", "cpu", "--load-format", "dummy", "--model-path", llama_8b, "--session-len", "4096",
                               "--device-memory-limit", "24GiB", "--kv", "int4", "--json"});
  INFO(planned.err);
  REQUIRE(planned.code == 0);
  const auto ledger = boost::json::parse(planned.out).at("ledger");
  const std::int64_t weights = ledger.at("ranks").at(0).at("weights_packed").as_int64();
  CHECK(weights > std::int64_t{7'500'000'000} * 2 * 9 / 10);  // 7.5 G weights of 16 bits, the embedding mapped
  CHECK(ledger.at("kv_tokens").as_int64() == 4096);
  CHECK(cli({"plan", "--device", "cpu", "--load-format", "dummy", "--model-path", "/no/such/config.json"}).code == 3);
}
