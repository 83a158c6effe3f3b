// SPDX-License-Identifier: Apache-2.0
//
// append and attend on the GPU against float64, with fresh random inputs in each run.
#include "kv_run.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::cuda;

namespace {

std::vector<int> plus(std::vector<int> lengths, int n) {
  for (int& length : lengths) length += n;
  return lengths;
}

}  // namespace

TEST_CASE("A tile gives every unit of every token a place of its own") {
  const auto check = []<class Codec, int head_dim>() {
    using Tile = KvTile<Codec, head_dim>;
    std::vector<int> used(Tile::bytes, 0);
    for (int t = 0; t < tile_tokens; ++t) {
      for (int u = 0; u < Tile::units; ++u)
        for (int b = 0; b < Tile::unit_bytes; ++b) ++used[Tile::key_unit(t, u) + b], ++used[Tile::value_unit(t, u) + b];
      if constexpr (Tile::folded)
        for (int g = 0; g < Tile::groups; ++g)
          for (int b = 0; b < 2 * Tile::scale_halves; ++b) ++used[Tile::scale_place(t, g) + b];
    }
    CHECK(std::ranges::max(used) == 1);
    CHECK(std::ranges::count(used, 1) == tile_tokens * (2 * Tile::units * Tile::unit_bytes + (Tile::folded ? Tile::groups * 2 * Tile::scale_halves : 0)));
  };
  check.operator()<AffineCodec<4, 128, false>, 128>();
  check.operator()<AffineCodec<4, 80, true>, 80>();
  check.operator()<AffineCodec<8, 32, false>, 96>();
  check.operator()<Plain16<Half>, 64>();
  check.operator()<Plain16<BFloat16>, 80>();
}

TEST_CASE("Stretches of the line cover it once and are equal to within a step") {
  std::mt19937_64 random(fresh_seed());
  for (int n = 0; n < 200; ++n) {
    const int all = std::uniform_int_distribution(1, 3000)(random);
    const int steps = std::uniform_int_distribution(1, 2000000)(random);
    const KvSplit split = KvSplit::of(all, steps);
    CHECK(split.begin(0) == 0);
    CHECK(split.begin(all) == steps);
    for (int w = 0; w < split.workers; ++w) {
      const int size = split.begin(w + 1) - split.begin(w);
      REQUIRE(size >= steps / split.workers);
      REQUIRE(size <= steps / split.workers + 1);
      REQUIRE(size <= (steps + all - 1) / all);
      REQUIRE(split.worker_of(split.begin(w)) == w);
      REQUIRE(split.worker_of(split.begin(w + 1) - 1) == w);
    }
  }
}

TEST_CASE("Decode attention of a ragged batch agrees with float64, for every codec and head_dim") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const std::vector<int> lengths = {1, 15, 16, 17, 63, 64, 65, 200, 777, 31};
  for (const Case& c : some_of(all_cases())) {
    Run run(c, {}, plus(lengths, 1), 2000, seed);
    run.append(lengths);
    run.append(std::vector<int>(lengths.size(), 1));
    run.attend();
    run.check_judged();
  }
}

TEST_CASE("Many short sequences, of which a warp takes several, agree with float64") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<int> lengths(900);
  for (int& length : lengths) length = std::uniform_int_distribution(1, 70)(random);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({1, 15, 19, 23}))
    for (const bool hadamard : some_of<bool>({false, true})) {
      Run run(cases[index], {.query_heads = 16, .kv_heads = 4, .hadamard = hadamard}, plus(lengths, 1), 40000, seed);
      run.append(lengths);
      run.append(std::vector<int>(lengths.size(), 1));
      run.attend();
      run.check_judged();
    }
}

TEST_CASE("Attending again gives the same bits") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::vector<int>& lengths : std::vector<std::vector<int>>{{1023}, {1900, 30, 611, 64}})
    for (const std::size_t index : some_of<std::size_t>({15, 16, 19, 23})) {
      Run run(cases[index], {}, plus(lengths, 1), 3000, seed);
      run.append(lengths);
      run.append(std::vector<int>(lengths.size(), 1));
      run.attend();
      run.check_judged();
      const auto first = run.out_device.download();
      for (int n = 0; n < few(5); ++n) {
        for (int m = 0; m < 9; ++m) run.attend();
        run.stream.wait();
        run.out_device.fill(0xff);
        run.attend();
        run.stream.wait();
        CHECK(run.out_device.download() == first);
      }
    }
}

TEST_CASE("A long sequence, of which a hundred blocks have a part, agrees with float64, and attending again gives the same bits") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  const std::vector<Knobs> variants = {{.query_heads = 4, .kv_heads = 1, .hadamard = true},
                                       {.query_heads = 12, .kv_heads = 1, .group_size = 12},
                                       {.query_heads = 2, .kv_heads = 2, .group_size = 1, .soft_cap = 20.0, .window = 12345}};
  for (const std::size_t index : some_of<std::size_t>({1, 16, 19, 21}))
    for (const Knobs& knobs : some_of(variants)) {
      Run run(cases[index], knobs, {20001, 90, 3001}, 23100, seed);
      run.append({20000, 30, 3000});
      run.append({1, 60, 1});
      run.attend();
      run.check_judged();
      const auto first = run.out_device.download();
      for (int n = 0; n < 3; ++n) {
        run.out_device.fill(0xff);
        run.attend();
        run.stream.wait();
        CHECK(run.out_device.download() == first);
      }
    }
}

TEST_CASE("Decodes beside sequences without one leave nothing behind for the next step") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({16, 19})) {
    Run run(cases[index], {}, {700, 3000, 200, 90}, 4000, seed);
    for (const std::vector<int>& counts : std::vector<std::vector<int>>{{500, 2900, 0, 60}, {1, 1, 0, 1}, {0, 0, 150, 0}, {1, 30, 1, 0}, {0, 1, 1, 1}, {1, 0, 0, 0}}) {
      run.append(counts);
      run.attend();
      run.check_judged();
    }
  }
}

TEST_CASE("Every group size, also where a rank's cut falls inside a group") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  const std::vector<int> lengths = {3, 130, 64};
  for (const std::size_t index : some_of<std::size_t>({1, 2, 3, 13, 15, 16, 19, 22}))
    for (const int group : some_of<int>({1, 2, 3, 5, 7, 8, 9, 12, 16})) {
      Knobs knobs{.query_heads = 2 * group, .kv_heads = 2, .group_size = group};
      Run whole(cases[index], knobs, plus(lengths, 1), 200, seed);
      whole.append(lengths);
      whole.append({1, 1, 1});
      whole.attend();
      whole.check_judged();
      if (group == 1) continue;
      knobs.group_offset = group - 1;  // the first group has one query head here, the last one all but one
      knobs.query_heads = 1 + group - (group > 2);
      Run cut(cases[index], knobs, plus(lengths, 40), 200, seed);
      cut.append(lengths);
      cut.append({1, 1, 30});
      cut.attend();
      cut.check_judged();
    }
}

TEST_CASE("Rotations, windows and soft caps agree with float64") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  const std::vector<int> lengths = {1, 100, 300, 64, 250};
  const std::vector<Knobs> variants = {
      {.hadamard = true},
      {.rope_pairs = LMKIT_ROPE_ADJACENT},
      {.rope_pairs = LMKIT_ROPE_NONE},
      {.rope_pairs = LMKIT_ROPE_HALVES, .rotary_dim = 32},
      {.rope_pairs = LMKIT_ROPE_HALVES, .rotary_dim = 20},
      {.rope_pairs = LMKIT_ROPE_HALVES, .rotary_dim = 54},
      {.rope_pairs = LMKIT_ROPE_ADJACENT, .rotary_dim = 54},
      {.window = 100},
      {.window = 1},
      {.soft_cap = 3.0},
      {.hadamard = true, .soft_cap = 20.0, .window = 77, .block_tokens = 128},
  };
  for (const std::size_t index : some_of<std::size_t>({0, 3, 7, 9, 13, 15, 16, 19, 20, 23, 24}))
    for (Knobs knobs : some_of(variants)) {
      knobs.centred = index == 9 || index == 19;
      Run run(cases[index], knobs, plus(lengths, 60), 1000, seed);
      run.append(lengths);
      run.append({1, 1, 1, 1, 1});
      run.attend();
      run.check_judged();
      run.append({1, 33, 17, 0, 59});
      run.attend();
      run.check_judged();
    }
}

TEST_CASE("Part of a head is rotated, whatever its halves are to the lanes of a warp") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  for (const Case& c : some_of(all_cases()))
    for (const int quarters : {1, 2, 3, 4}) {
      Run run(c, {.rotary_dim = c.head_dim / 4 * quarters}, {100, 30, 70}, 200, seed);
      run.append({40, 1, 33});
      run.append({1, 1, 1});
      run.append({50, 2, 20});
      run.attend();
      run.check_judged();
    }
}

TEST_CASE("Prefill in chunks, mixed with decodes, agrees with float64 for every codec and head_dim") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  for (const Case& c : some_of(all_cases())) {
    Run run(c, {.query_heads = 4, .kv_heads = 2, .group_size = 2}, {400, 500, 200, 3}, 600, seed);
    for (const std::vector<int>& counts : std::vector<std::vector<int>>{{130, 1, 64, 2}, {1, 257, 0, 1}, {64, 100, 70, 0}}) {
      run.append(counts);
      run.attend();
      run.check_judged();
    }
  }
}

TEST_CASE("A replayed graph gives the bits of an eager run") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  for (const std::size_t index : some_of<std::size_t>({13, 14, 15, 19, 23})) {
    Run run(cases[index], {.hadamard = true, .centred = index == 19}, {500, 70, 3}, 600, seed);
    run.append({300, 60, 1});
    const auto pages_before = run.rig.pool.download();
    run.append({1, 1, 2});
    run.attend();
    run.stream.wait();
    const auto pool = run.rig.pool.download();
    const auto q = run.q_device.download(), eager = run.out_device.download();
    const DeviceArray<std::uint16_t> q_given(run.q_before);
    // attend right behind append, and behind something that is no kernel
    for (const bool apart : {false, true}) {
      cudaGraphExec_t graph = run.stream.capture([&] {
        check(cudaMemcpyAsync(run.q_device.data(), q_given.data(), 2 * q_given.size(), cudaMemcpyDeviceToDevice, run.stream));
        REQUIRE(run.rig.kv.append(run.append_args(), Run::on(run.stream)) == Status::ok);
        if (apart) check(cudaMemsetAsync(run.out_device.data(), 0, 2 * run.out_device.size(), run.stream));
        run.attend();
      });
      for (int n = 0; n < 5; ++n) {
        run.out_device.fill(apart ? 0 : 0xff);
        run.rig.workspace.fill(0xff);
        run.rig.pool.upload(pages_before);
        check(cudaGraphLaunch(graph, run.stream));
        run.stream.wait();
        auto out = run.out_device.download();
        if (apart)  // what lies between rows was cleared
          for (std::size_t i = 0; i < out.size(); ++i)
            if (i % run.out_stride() >= std::size_t(run.knobs.query_heads * run.c.head_dim)) out[i] = 0xffff;
        CHECK(out == eager);
        CHECK(run.q_device.download() == q);
        CHECK(run.rig.pool.download() == pool);
      }
      check(cudaGraphExecDestroy(graph));
    }
  }
}

TEST_CASE("Blocks are copied whole, and only those") {
  NEEDS_DEVICE();
  const auto cases = all_cases();
  for (const std::size_t index : {13, 15, 23}) {
    Run run(cases[index], {}, {300}, 400, fresh_seed());
    run.append({300});
    auto expected = run.rig.pool.download();
    const auto& rig = run.rig;
    const std::vector<std::int32_t> source = {rig.table[0], rig.table[2]};
    std::vector<std::int32_t> target;
    for (std::int32_t id = 0; target.size() < 2; ++id)
      if (std::ranges::find(rig.table, id) == rig.table.end()) target.push_back(id);
    for (int n = 0; n < 2; ++n)
      std::copy_n(expected.begin() + source[n] * rig.block_stride + rig.layer_offset, rig.kv.block_bytes(),
                  expected.begin() + target[n] * rig.block_stride + rig.layer_offset);
    const DeviceArray<std::int32_t> from(source), to(target);
    const KvCopy args{sizeof(KvCopy), 2, from.data(), to.data(), rig.pool.data(), rig.block_stride, rig.layer_offset};
    REQUIRE(run.rig.kv.copy_blocks(args, Run::on(run.stream)) == Status::ok);
    run.stream.wait();
    CHECK(rig.pool.download() == expected);
  }
}

TEST_CASE("A shape the kernels do not serve is refused with what they do") {
  NEEDS_DEVICE();
  RigShape shape;
  const auto refuses = [&](const char* text) {
    CHECK_THROWS_WITH(CudaKv(kv_shape(shape), plain_kv_kernels()), Catch::Contains(text));
    shape = {};
  };
  shape.head_dim = 72;
  refuses("64, 80, 96, 128, 256");
  shape.group_size = 32;
  refuses("1 to 16");
  shape.block_tokens = 48;
  refuses("multiple of 64");
  shape.query_heads = 9;
  refuses("key/value head for every query head");
}
