// SPDX-License-Identifier: Apache-2.0
#include "kv_reference.hpp"

#include <lmkit/builtin/kv_f16.hpp>

using namespace kv_test;

namespace {

// KvF16 with the kernels of one instruction set.
struct HalfKv : kernels::CpuKv {
  HalfKv(const KvShape& shape, kernels::CpuIsa isa) : CpuKv(shape, kernels::kv_kernels_for<kernels::HalfCodec>(isa)) {}
};

std::vector<kernels::CpuIsa> isas() {
  std::vector<kernels::CpuIsa> all;
  for (auto isa : {kernels::CpuIsa::baseline, kernels::CpuIsa::avx2, kernels::CpuIsa::avx512})
    if (isa <= kernels::cpu_isa()) all.push_back(isa);
  return all;
}

}  // namespace

TEST_CASE("f16 attention over ragged batches equals the reference") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {1, 63, 64, 65, 300, 777}};
  SECTION("adjacent pairs") {}
  SECTION("halves, part of the head") { p.rope_pairs = LMKIT_ROPE_HALVES, p.rotary_dim = 32; }
  SECTION("no rope") { p.rope_pairs = LMKIT_ROPE_NONE, p.rotary_dim = 0; }
  SECTION("window") { p.window = 100; }
  SECTION("window within a block") { p.window = 7; }
  SECTION("soft cap") { p.soft_cap = 2.f; }
  SECTION("a cut inside a group") { p.shape = shape_of(5, 3, 64, 2, 3); }
  SECTION("one key/value head for all") { p.shape = shape_of(10, 1, 64); }
  SECTION("a head each") { p.shape = shape_of(2, 2, 64); }
  for (int dim : {8, 24, 80, 96, 128, 256}) SECTION("head_dim " + std::to_string(dim)) {
      p.shape = shape_of(6, 2, dim), p.rotary_dim = dim;
      p.lengths = {3, 130};
    }
  const Inputs in(p, seed);
  const auto want = reference(p, in, half_rounding);
  for (auto isa : isas())
    for (int workers : {1, 2, 3}) {
      HalfKv kv(p.shape, isa);
      Cache cache(p, kv, workers, seed);
      cache.run_ragged(in, seed + workers);
      INFO(kernels::name_of(isa) << " with " << workers << " workers");
      CHECK(error_of(cache.out(), want) < 2e-3);  // a key may round to the other neighbour in half
    }
}

TEST_CASE("a result depends neither on workers nor on the batch nor on the chunks") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {700, 40, 1100}};
  SECTION("all tokens visible") {}
  SECTION("window") { p.window = 300; }
  const Inputs in(p, seed);
  for (auto isa : isas()) {
    HalfKv kv(p.shape, isa);
    Cache whole(p, kv, 1, seed);
    whole.step(in, p.lengths);
    for (int workers : {2, 5}) {
      Cache ragged(p, kv, workers, seed);
      ragged.run_ragged(in, seed);
      for (std::size_t s = 0; s < p.lengths.size(); ++s)
        CHECK(std::memcmp(whole.out()[s].data(), ragged.out()[s].data(), whole.out()[s].size() * 4) == 0);
    }
    Cache alone(p, kv, 3, seed + 1);
    alone.run_alone(in, 0, 1);
    alone.run_alone(in, 2, 333);
    CHECK(std::memcmp(whole.out()[0].data(), alone.out()[0].data(), whole.out()[0].size() * 4) == 0);
    CHECK(std::memcmp(whole.out()[2].data(), alone.out()[2].data(), whole.out()[2].size() * 4) == 0);
  }
}

TEST_CASE("a sequence goes on where its blocks were copied to") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Problem p{.shape = shape_of(4, 2, 64), .rotary_dim = 64, .lengths = {150, 100}};
  const Inputs in(p, seed);
  KvF16 kv(p.shape);
  Cache stays(p, kv, 2, seed), moves(p, kv, 2, seed);
  for (auto* cache : {&stays, &moves}) {
    cache->step(in, {100, 40});
    if (cache == &moves) cache->move_blocks(0);
    cache->step(in, {50, 60});
  }
  for (std::size_t s : {0, 1}) CHECK(std::memcmp(stays.out()[s].data(), moves.out()[s].data(), stays.out()[s].size() * 4) == 0);
}

TEST_CASE("values beyond half precision are clamped, not lost") {
  const Problem p{.shape = shape_of(1, 1, 8), .rope_pairs = LMKIT_ROPE_NONE, .lengths = {2}};
  Inputs in(p, 1);
  std::fill(in.v[0].begin(), in.v[0].end(), 1e9f);
  KvF16 kv(p.shape);
  Cache cache(p, kv, 1, 1);
  cache.step(in, {2});
  for (float x : cache.out()[0]) CHECK(x == Approx(65504));
}

TEST_CASE("a shape that the CPU kernels cannot serve is refused with what they can") {
  const auto refusal = [](KvShape shape) {
    try {
      CpuKvF16 kv(shape);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const KvShape good = shape_of(9, 3, 64);
  CHECK(refusal(good).empty());
  KvShape shape = good;
  shape.head_dim = 60;
  CHECK(refusal(shape) == "head_dim 60; expected a multiple of 8 up to 512");
  shape = good, shape.dtype = LMKIT_F16;
  CHECK(refusal(shape).find("f32") != std::string::npos);
  shape = good, shape.device = LMKIT_CUDA;
  CHECK(refusal(shape).find("the CPU") != std::string::npos);
  shape = good, shape.block_tokens = 32;
  CHECK(refusal(shape).find("blocks of 64") != std::string::npos);
  shape = good, shape.group_offset = 1;
  CHECK(refusal(shape).find("a key/value head for every query head") != std::string::npos);
}
