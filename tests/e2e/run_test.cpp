// SPDX-License-Identifier: Apache-2.0
//
// lmkit with a real model: what an answer looks like, what it costs, and what is refused before it starts.
#include "cli.hpp"

#include <boost/json.hpp>
#include <catch.hpp>

#include <set>
#include <string>
#include <vector>

using namespace lmkit::test;

namespace {

namespace json = boost::json;

const std::string question = "What is the capital of France?";
const std::string counting = "1, 2, 3, 4, 5, 6, 7, 8,";  // every next token is certain, so that rounding cannot change it

json::value answer_of(std::vector<std::string> words) {
  words.insert(words.begin(), {"run", "--json"});
  const Outcome outcome = cli(words);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return json::parse(outcome.out);
}

}  // namespace

TEST_CASE("an answer goes to stdout, the start-up line to stderr", "[run]") {
  if (!have_model()) return;
  const Outcome outcome = cli({"run", "--raw", "-n", "12", counting});
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, Catch::StartsWith(" 9, 10, 11"));
  CHECK(outcome.out.ends_with('\n'));
  CHECK_THAT(outcome.err, Catch::StartsWith("pipeline: one-device | kv-f16 | whole-pool   weights "));
  CHECK_THAT(outcome.err, Catch::Contains("/rank  KV ") && Catch::Contains(" tokens"));
  CHECK(outcome.err.find('\x1b') == std::string::npos);  // no colour where nobody looks
}

TEST_CASE("the prompt may stand on stdin", "[run]") {
  if (!have_model()) return;
  const Outcome given = cli({"run", "-n", "12", question}), piped = cli({"run", "-n", "12"}, {.input = question + "\n"}),
                dash = cli({"run", "-n", "12", "-"}, {.input = question});
  CHECK(piped.out == given.out);
  CHECK(dash.out == given.out);
}

TEST_CASE("--json is one object with schema, tokens, usage and ledger", "[run]") {
  if (!have_model()) return;
  const json::value answer = answer_of({"-n", "5", "--logprobs", "3", question});
  CHECK(answer.at("schema") == "lmkit.run/1");
  CHECK(answer.at("finish") == "length");
  CHECK(answer.at("pipeline") == "one-device | kv-f16 | whole-pool");
  CHECK(answer.at("usage").at("generated_tokens") == 5);
  const json::array& tokens = answer.at("tokens").as_array();
  REQUIRE(tokens.size() == 5);
  for (const json::value& token : tokens) {
    CHECK(token.at("top").as_array().size() == 3);
    CHECK(token.at("logprob").as_double() <= 0);
    CHECK(token.at("top").at(0).at("id") == token.at("id"));  // greedy
  }
  CHECK(answer.at("ledger").at("ranks").at(0).at("kv_pool").as_int64() > 0);
}

TEST_CASE("plan prints the ledger that run allocates", "[run]") {
  if (!have_model()) return;
  for (const std::vector<std::string>& options : {std::vector<std::string>{}, {"--kv", "int8"}, {"--kv", "int4", "-c", "1000"}, {"--tp", "2"},
                                                  {"--cache-max-entry-count", "0.5", "--device-memory-limit", "300MiB"}}) {
    std::vector<std::string> words{"plan", "--json"}, run{"-n", "1", question};
    words.insert(words.end(), options.begin(), options.end());
    run.insert(run.end(), options.begin(), options.end());
    const Outcome planned = cli(words);
    INFO(planned.err);
    REQUIRE(planned.code == 0);
    const json::value plan = json::parse(planned.out);
    CHECK(plan.at("schema") == "lmkit.plan/1");
    const json::value ran = answer_of(run);
    CHECK(plan.at("ledger").at("ranks") == ran.at("ledger").at("ranks"));
    CHECK(plan.at("ledger").at("blocks") == ran.at("ledger").at("blocks"));
  }
}

TEST_CASE("sugar and plugin specs compose the same pipeline", "[run]") {
  if (!have_model()) return;
  const auto pipeline_of = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"plan", "--json"});
    const Outcome outcome = cli(words);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return std::string(json::parse(outcome.out).at("pipeline").as_string());
  };
  const std::string int4 = "one-device | kv-int4 | whole-pool";
  CHECK(pipeline_of({"--plugin", "kv-int4"}) == int4);
  CHECK(pipeline_of({"--kv", "int4"}) == int4);
  CHECK(pipeline_of({"--quant-policy", "4"}) == int4);
  CHECK(pipeline_of({"-ctk", "q4_0", "-ctv", "q4_0"}) == int4);
  CHECK(pipeline_of({"--quant-policy", "0"}) == "one-device | kv-f16 | whole-pool");
  CHECK(pipeline_of({"--tp", "2", "--kv", "int8", "--cache-max-entry-count", "0.5"}) == "tp-threads(2) | kv-int8 | mem-ratio(0.5)");
  CHECK(pipeline_of({"--plugin", "tp-threads:size=2", "--plugin", "mem-ratio:ratio=0.5"}) == "tp-threads(2) | kv-f16 | mem-ratio(0.5)");
}

TEST_CASE("int8 and int4 pages take their share of f16's bytes a token", "[run]") {
  if (!have_model()) return;
  const auto block_bytes = [](const char* kv) {
    return json::parse(cli({"plan", "--json", "--kv", kv}).out).at("ledger").at("ranks").at(0).at("kv_block_bytes").to_number<double>();
  };
  const double f16 = block_bytes("f16");
  CHECK(block_bytes("int8") <= 0.54 * f16);
  CHECK(block_bytes("int4") <= 0.285 * f16);
}

TEST_CASE("the same seed gives the same text, another seed another", "[run]") {
  if (!have_model()) return;
  const auto text = [](const char* seed) { return cli({"run", "-n", "24", "--temperature", "1", "--seed", seed, "Tell me a story."}).out; };
  CHECK(text("7") == text("7"));
  std::set<std::string> texts;
  for (const char* seed : {"1", "2", "3", "4"}) texts.insert(text(seed));
  CHECK(texts.size() > 1);
}

TEST_CASE("a stop string ends the answer and is no part of it", "[run]") {
  if (!have_model()) return;
  const json::value answer = answer_of({"--raw", "-n", "40", "--stop", "11", counting});
  CHECK(answer.at("finish") == "stop");
  CHECK(std::string(answer.at("text").as_string()).find("11") == std::string::npos);
}

TEST_CASE("logit bias forbids a token", "[run]") {
  if (!have_model()) return;
  const json::value first = answer_of({"-n", "1", question});
  const std::int64_t id = first.at("tokens").at(0).at("id").as_int64();
  const json::value other = answer_of({"-n", "1", "--logit-bias", std::to_string(id) + ":-inf", question});
  CHECK(other.at("tokens").at(0).at("id") != id);
  CHECK(cli({"run", "--logit-bias", "1:inf", question}).code == 2);
  CHECK(cli({"run", "--logit-bias", "49152:1", question}).code == 2);
  CHECK(cli({"run", "--logit-bias", "1", question}).code == 2);
}

TEST_CASE("ranks as threads give the single rank's greedy text", "[run]") {
  if (!have_model()) return;
  const std::string one = cli({"run", "--raw", "-n", "24", counting}).out;
  CHECK(cli({"run", "--raw", "-n", "24", "--tp", "2", counting}).out == one);
  CHECK(cli({"run", "--raw", "-n", "24", "--tp", "5", counting}).out == one);
}

TEST_CASE("what does not fit or cannot be cut is refused before anything runs", "[run]") {
  if (!have_model()) return;
  const auto refused = [](const Outcome& outcome, int code) {
    INFO(outcome.err);
    CHECK(outcome.code == code);
    CHECK(outcome.out.empty());
    CHECK_THAT(outcome.err, Catch::Contains("error: "));
  };
  refused(cli({"run", "--device-memory-limit", "20MiB", question}), 4);
  refused(cli({"run", "--plugin", "mem-ratio:bytes=1000", question}), 4);
  refused(cli({"run", "--tp", "99", question}), 5);
  const Outcome too_long = cli({"run", "-c", "64", std::string(2000, 'x') + " and so on"});
  refused(too_long, 2);
  CHECK_THAT(too_long.err, Catch::Contains("64"));
}

TEST_CASE("Ctrl-C ends a run with 130 and what was written so far", "[run]") {
  if (!have_model()) return;
  const Outcome outcome = cli({"run", "--ignore-eos", "-n", "7000", "Count to ten thousand."}, {.interrupt_after_ms = 1500});
  CHECK(outcome.code == 130);
  CHECK(outcome.err.find("error") == std::string::npos);
}

TEST_CASE("chat answers line by line and knows its commands", "[chat]") {
  if (!have_model()) return;
  const Outcome outcome = cli({"chat", "-n", "12"}, {.input = question + "\n/help\n/reset\n/sytem x\n" + question + "\n/quit\nnever read\n"});
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err, Catch::Contains("/reset") && Catch::Contains("/sytem"));
  const std::size_t half = outcome.out.size() / 2;
  CHECK(outcome.out.substr(0, half) == outcome.out.substr(half));  // after /reset the same question has the same answer
}

TEST_CASE("perplexity of a text is printed with its context", "[eval]") {
  if (!have_model()) return;
  const TemporaryDirectory folder;
  std::string text;
  for (int i = 0; i < 60; ++i) text += "The keeper of the lighthouse counted the steps, number " + std::to_string(i * 37 % 101) + ", and wrote it down. ";
  const std::string file = folder.write("text", text);
  const Outcome outcome = cli({"eval", "ppl", "--data", file, "--context", "64,128", "--chunks", "3", "--kv", "f16,int8", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const json::value report = json::parse(outcome.out);
  CHECK(report.at("schema") == "lmkit.eval_ppl/1");
  REQUIRE(report.at("results").as_array().size() == 4);
  const double f16 = report.at("results").at(0).at("perplexity").as_double(), int8 = report.at("results").at(2).at("perplexity").as_double();
  CHECK(report.at("results").at(0).at("scored") == 3 * 31);
  CHECK(f16 > 1);
  CHECK(f16 < 60);
  CHECK(std::abs(int8 / f16 - 1) < 0.02);
  CHECK(cli({"eval", "ppl", "--data", "/no/such/file"}).code == 2);
  CHECK(cli({"eval", "ppl", "--data", folder.write("short", "too short")}).code == 2);
  CHECK(cli({"eval", "ppl", "--data", folder.write("latin1", std::string(5000, '\xe9'))}).code == 2);
  CHECK(cli({"eval", "ppl"}).code == 2);
}

TEST_CASE("bench reports rates, the machine's bandwidth and the fraction of it", "[bench]") {
  if (!have_model()) return;
  const Outcome outcome = cli({"bench", "engine", "--json", "--kv", "f16,int4", "--depths", "0,70", "--batches", "1,2", "--prefill", "32",
                                 "--steps", "4", "--repeats", "1"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const json::value report = json::parse(outcome.out);
  CHECK(report.at("schema") == "lmkit.bench_engine/1");
  CHECK(report.at("read_bandwidth").to_number<double>() > 1e8);
  CHECK(report.at("results").as_array().size() == 2 * (1 + 2 * 2));
  for (const json::value& row : report.at("results").as_array()) CHECK(row.at("tokens_per_second").to_number<double>() > 0);
}
