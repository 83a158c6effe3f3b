// SPDX-License-Identifier: Apache-2.0
//
// lmkit bench kernel on the CPU: every row is there, and its kernels agree with float64. Nothing is said about time.
#include "cli.hpp"

#include <boost/json.hpp>
#include <catch.hpp>

#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace json = boost::json;
using namespace lmkit::test;

namespace {

std::string shape_of(const json::value& row) {
  const json::object& shape = row.at("shape").as_object();
  const std::string tokens = std::to_string(shape.at("tokens").as_int64());
  if (!shape.contains("depth")) return tokens;
  return tokens + (shape.at("ragged").as_bool() ? " ragged " : " at ") + std::to_string(shape.at("depth").as_int64());
}

// "f16 attend decode 3 at 70", each once.
std::set<std::string> names_of(const json::array& rows) {
  std::set<std::string> names;
  for (const json::value& row : rows)
    CHECK(names.insert((row.at("kv").is_null() ? "" : std::string(row.at("kv").as_string()) + " ") + std::string(row.at("what").as_string()) + " " + shape_of(row)).second);
  return names;
}

// What rounding an op's numbers may cost it.
double bound_of(const std::string& what, const std::string& kv) {
  if (what.starts_with("attend")) return kv == "int4" ? 0.3 : kv == "int8" ? 0.02 : 2e-3;
  if (what == "copy blocks") return 0;
  return what.starts_with("gemm") ? 5e-3 : what.starts_with("sample") ? 1e-4 : 1e-5;
}

void check_numbers(const json::array& rows) {
  for (const json::value& row : rows) {
    const std::string what(row.at("what").as_string()), kv = row.at("kv").is_null() ? "" : std::string(row.at("kv").as_string());
    INFO(json::serialize(row));
    for (const char* number : {"seconds", "fraction"}) {
      CHECK(std::isfinite(row.at(number).to_number<double>()));
      CHECK(row.at(number).to_number<double>() > 0);
    }
    const json::object& all = row.as_object();
    CHECK(all.contains("bytes_per_second") != all.contains("flops_per_second"));
    CHECK(row.at(all.contains("bytes_per_second") ? "bytes_per_second" : "flops_per_second").to_number<double>() > 0);
    if (row.at("error").is_null()) CHECK(what == "append");
    else CHECK(row.at("error").to_number<double>() <= bound_of(what, kv));
  }
}

json::value report_of(std::vector<std::string> words) {
  words.insert(words.begin(), {"bench", "kernel", "--json", "--device", "cpu", "--repeats", "1"});
  const Outcome outcome = cli(words);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return json::parse(outcome.out);
}

}  // namespace

TEST_CASE("bench kernel has a row for every op, whose result agrees with float64", "[bench]") {
  if (!have_model()) return;
  const json::value report = report_of({"--kv", "f16,int8,int4", "--max-batch-tokens", "4", "--depths", "70", "--batches", "1,3", "--prefill", "40"});
  INFO("seed " << report.at("seed"));
  CHECK(report.at("schema") == "lmkit.bench_kernel/1");
  for (const char* limit : {"read_bandwidth", "gemm_flops_per_second"}) CHECK(report.at(limit).to_number<double>() > 1e6);

  std::set<std::string> expected;
  for (const char* tokens : {" 1", " 4"})
    for (const char* product : {"qkv", "attention output", "gate_up", "down", "layer", "output"}) expected.insert(std::string("gemm ") + product + tokens);
  for (const char* tokens : {" 1", " 3", " 4"})
    for (const char* op : {"rms_norm", "add", "silu_mul", "embedding"}) expected.insert(op + std::string(tokens));
  for (const char* rows : {" 1", " 3"})
    for (const char* way : {"greedy", "top-k 50", "top-p 0.9"}) expected.insert(std::string("sample ") + way + rows);
  for (const std::string kv : {"f16", "int8", "int4"}) {
    expected.insert(kv + " copy blocks 192");  // half of 6 or 7 blocks
    for (const char* shape : {"decode 1 at 70", "decode 3 at 70", "decode 3 ragged 70", "prefill 40 at 40"}) {
      expected.insert(kv + " attend " + shape);
      expected.insert(kv + " append " + std::string(shape).substr(std::string(shape).find(' ') + 1));
    }
  }
  const json::array& rows = report.at("results").as_array();
  CHECK(names_of(rows) == expected);
  check_numbers(rows);
}

TEST_CASE("bench kernel measures any architecture: biases, normalised heads and sliding windows", "[bench]") {
  const TemporaryDirectory folder;
  const std::string shape = R"("hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "vocab_size": 320, )";
  for (const std::string& kind : {std::string(R"("model_type": "qwen2", "use_sliding_window": true, "sliding_window": 24, "max_window_layers": 1)"),
                                  std::string(R"("model_type": "qwen3", "head_dim": 64)")}) {
    const std::string config = folder.write("config.json", "{" + shape + kind + "}");
    INFO(kind);
    const json::value report = report_of({"--load-format", "dummy", "--model-path", config, "--max-batch-tokens", "4", "--depths", "100", "--batches", "1,2", "--prefill", "90"});
    check_numbers(report.at("results").as_array());
  }
}

TEST_CASE("bench says what it can measure, and what does not fit", "[bench]") {
  CHECK(cli({"bench"}).code == 2);
  CHECK(cli({"bench", "kernels"}).code == 2);
  if (!have_model()) return;
  const Outcome ranks = cli({"bench", "kernel", "--device", "cpu", "--tp", "3"});
  CHECK(ranks.code == 2);
  CHECK_THAT(ranks.err, Catch::Contains("--tp"));
  const Outcome full = cli({"bench", "kernel", "--device", "cpu", "--device-memory-limit", "20MiB"});
  CHECK(full.code == 4);
  CHECK_THAT(full.err, Catch::Contains("20.0 MiB"));
  const Outcome too_deep = cli({"bench", "kernel", "--device", "cpu", "--depths", "1000000"});
  CHECK(too_deep.code == 2);
  CHECK_THAT(too_deep.err, Catch::Contains("--depths"));
}
