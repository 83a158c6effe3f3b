// SPDX-License-Identifier: Apache-2.0
#include "engine_fixture.hpp"

#include <lmkit/base/memory.hpp>

#include <fstream>
#include <unistd.h>

using namespace lmkit;
using namespace lmkit::test;

namespace {

const TinyModel& model() {
  static const TinyModel tiny(1);
  return tiny;
}

Ledger plan(const EngineLimits& limits, FixedPool policy = {}) {
  TinyPipeline::Parts parts;
  parts.allocator = policy;
  return TinyPipeline::plan(model(), parts, limits);
}

ErrorKind kind_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).size() > 10);
    return error.kind();
  }
  return ErrorKind::gate;
}

std::int64_t virtual_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

}  // namespace

TEST_CASE("the ledger is exact: it is what the engine allocates") {
  const EngineLimits limits{.threads = 2, .max_sequences = 3, .max_batch_tokens = 50};
  const auto pipeline = std::make_unique<Pipeline<>>(std::make_shared<TinyModel>(1), PipelineParts<>{}, limits);
  const RankLedger& rank = pipeline->ledger().ranks.at(0);
  REQUIRE(static_cast<std::int64_t>(pipeline->engine().executor().kv_pool(0).size()) == rank.kv_pool);
  REQUIRE(pipeline->engine().executor().allocated(0) == rank.arena());
  REQUIRE(rank.total() == rank.arena() + rank.weights_mapped);
  // by hand, for a tiny Llama: norms and embedding are read where they lie
  REQUIRE(rank.weights_mapped == 4 * (300 * 64 + 5 * 64));
  // 2 layers of 2 heads of 64 tokens of 2 * 32 halves
  REQUIRE(rank.kv_block_bytes == 2 * 2 * 64 * 2 * 32 * 2);
  REQUIRE(pipeline->ledger().blocks == 3 * 8);
  REQUIRE(rank.logits >= 50 * 300 * 4);
}

TEST_CASE("nothing is allocated while the engine steps, once it has seen its largest step") {
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1), {.max_sequences = 8, .max_batch_tokens = 512});
  std::mt19937_64 random(1);
  const auto work = [&] {
    for (int i = 0; i < 16; ++i) pipeline->engine().submit(greedy(random_prompt(random, 400), 40));
    run_to_end(pipeline->engine());
  };
  work();
  const std::int64_t before = virtual_bytes();
  for (int i = 0; i < 5; ++i) work();
  REQUIRE(virtual_bytes() - before < 4 * 1024 * 1024);  // events and their like
}

TEST_CASE("a limit caps the ledger, and every byte of it may be used") {
  const EngineLimits small{.threads = 1, .max_sequences = 8, .max_batch_tokens = 64, .device_memory = 3 << 20};
  const Ledger ledger = plan(small);
  REQUIRE(ledger.ranks[0].total() <= small.device_memory);
  REQUIRE(ledger.ranks[0].total() + ledger.ranks[0].kv_block_bytes > small.device_memory);
  REQUIRE(ledger.session_len == std::min<std::int64_t>(512, ledger.kv_tokens()));
}

TEST_CASE("the pool is never larger than all sequences can fill") {
  const Ledger ledger = plan({.threads = 1, .max_sequences = 3, .session_len = 100});
  REQUIRE(ledger.blocks == 3 * 2);
  REQUIRE(ledger.session_len == 100);
}

TEST_CASE("a pool below one block is an error that says what to change") {
  REQUIRE(kind_of([] { plan({.threads = 1, .device_memory = 1 << 20}); }) == ErrorKind::memory);
  REQUIRE(kind_of([] { plan({.threads = 1}, {.blocks = 0}); }) == ErrorKind::memory);
}

TEST_CASE("limits that make no sense are usage errors") {
  REQUIRE(kind_of([] { plan({.threads = 1, .session_len = 513}); }) == ErrorKind::usage);
  REQUIRE(kind_of([] { plan({.threads = 1, .session_len = -1}); }) == ErrorKind::usage);
  REQUIRE(kind_of([] { plan({.threads = 1, .max_sequences = 0}); }) == ErrorKind::usage);
  REQUIRE(kind_of([] { plan({.threads = 1, .max_batch_tokens = -1}); }) == ErrorKind::usage);
}

TEST_CASE("a context beyond the pool is cut to the pool, and an answer that fills it ends by length") {
  const auto pipeline = tiny_pipeline(std::make_shared<TinyModel>(1), {.blocks = 2});
  REQUIRE(pipeline->ledger().session_len == 128);
  const RequestId too_long = pipeline->engine().submit(greedy(std::vector<TokenId>(128, 1), 5));
  const RequestId fits = pipeline->engine().submit(greedy(std::vector<TokenId>(100, 1), -1));
  Answers answers = run_to_end(pipeline->engine());
  REQUIRE(answers[too_long].finish == Finish::error);
  REQUIRE(answers[fits].finish == Finish::length);
  REQUIRE(answers[fits].tokens.size() == 28);
}

TEST_CASE("available memory is a positive number of bytes") { REQUIRE(available_memory() > (1 << 20)); }
