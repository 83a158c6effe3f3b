// SPDX-License-Identifier: Apache-2.0
//
// Prefill attention on the GPU against float64, by warps and, where the GPU has them, by warpgroups.
#include "kv_run.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::cuda;

namespace {

// Steps of new tokens; the lengths they come to.
struct Chunks {
  std::vector<std::vector<int>> steps;
  std::vector<int> lengths() const {
    std::vector<int> sum(steps[0].size(), 0);
    for (const auto& counts : steps)
      for (std::size_t s = 0; s < sum.size(); ++s) sum[s] += counts[s];
    return sum;
  }
};

void check_chunks(const Case& c, Knobs knobs, const Chunks& chunks, std::uint64_t seed) {
  for (const bool warpgroups : {false, true}) {
    knobs.warpgroups = warpgroups;
    Run run(c, knobs, chunks.lengths(), 1500, seed);
    for (const auto& counts : chunks.steps) {
      if (knobs.window > 0) run.rig.poison_passed(knobs.window);
      run.append(counts);
      run.attend();
      run.check_judged();
    }
  }
}

}  // namespace

TEST_CASE("Prefill by warps and by warpgroups agrees with float64 for every codec and head_dim, in ragged batches over earlier pages") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const Chunks chunks{{{2, 63, 64, 65, 127, 128, 129, 190}, {200, 1, 66, 0, 130, 3, 257, 64}, {15, 90, 1, 31, 64, 128, 2, 100}}};
  for (const Case& c : some_of(all_cases())) check_chunks(c, {.query_heads = 4, .kv_heads = 2, .group_size = 2}, chunks, seed);
}

TEST_CASE("Prefill of every group size, cut and whole") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({1, 15, 16, 19}))
    for (const int group : some_of<int>({1, 2, 3, 4, 5, 6, 7, 8, 11, 16})) {
      check_chunks(cases[index], {.query_heads = 2 * group, .kv_heads = 2, .group_size = group}, {{{70, 5}, {9, 150}}}, seed);
      if (group > 1) check_chunks(cases[index], {.query_heads = group, .kv_heads = 2, .group_size = group, .group_offset = group - 1}, {{{33, 140}}}, seed);
    }
}

TEST_CASE("Prefill with windows, soft caps, rotations, centred keys and larger blocks") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  const Chunks chunks{{{130, 64, 70}, {1, 100, 131}, {90, 65, 3}}};
  for (const std::size_t index : some_of<std::size_t>({0, 1, 4, 16, 17, 18, 19, 21, 24, 26}))
    for (Knobs knobs : some_of<Knobs>({{.window = 1}, {.window = 50}, {.window = 128}, {.soft_cap = 3}, {.soft_cap = 20, .window = 77},
                                       {.hadamard = true, .soft_cap = 5, .window = 190, .block_tokens = 192}, {.block_tokens = 256}})) {
      knobs.query_heads = 2, knobs.kv_heads = 1, knobs.group_size = 2;
      if (std::string_view(cases[index].name) == "int4") knobs.centred = true, knobs.common = 2;
      check_chunks(cases[index], knobs, chunks, seed);
    }
}

TEST_CASE("A prompt of many steps, and one that ends in the middle of everything") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({1, 15, 16, 18, 19, 21, 24}))
    for (const int length : some_of<int>({1024, 1409})) {
      Knobs knobs{.query_heads = 1, .kv_heads = 1, .group_size = 1};
      knobs.centred = std::string_view(cases[index].name) == "int4";
      check_chunks(cases[index], knobs, {{{length}}}, seed);
      knobs.window = 700;
      check_chunks(cases[index], knobs, {{{length - 200}, {200}}}, seed);
    }
}

TEST_CASE("Prefill gives the same bits whenever it runs") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({1, 15, 16, 19, 24})) {
    Run run(cases[index], {.query_heads = 16, .kv_heads = 4, .group_size = 4}, {900, 300}, 1200, seed);
    run.append({800, 290});
    run.attend();
    run.stream.wait();
    const auto first = run.out_device.download();
    for (int n = 0; n < few(10); ++n) {
      run.out_device.fill(0xff);
      run.attend();
      run.stream.wait();
      REQUIRE(run.out_device.download() == first);
    }
  }
}
