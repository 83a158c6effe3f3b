// SPDX-License-Identifier: Apache-2.0
//
// append and attend on the GPU against float64, with fresh random inputs in each run.
#include "test_codecs.hpp"

#include "kv_rig.hpp"

#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/kv_plain.hpp>

#include <catch.hpp>

#include <cstdio>

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::cuda;

namespace {

bool no_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return false;
  static const bool said = [] {
    std::puts("no CUDA device: the GPU kernels are not tested here");
    return true;
  }();
  return said;
}

#define NEEDS_DEVICE() \
  if (no_device()) return

struct Case {
  const char* name;
  std::span<const KvKernels* const> kernels;
  int head_dim;
  TokenReader reader;
  double storage_error;  // a generous bound of |stored - given| / |given| on normally distributed heads
  bool is_bf16;
};

template <class Codec, int head_dim>
Case case_of(const char* name, std::span<const KvKernels* const> kernels, double storage_error, bool is_bf16 = true) {
  return {name, kernels, head_dim, read_tile_token<Codec, head_dim>, storage_error, is_bf16};
}

template <int head_dim>
void add_cases(std::vector<Case>& cases) {
  cases.push_back(case_of<Plain16<Half>, head_dim>("fp16", plain_kv_kernels(), 5e-4, false));
  cases.push_back(case_of<Plain16<BFloat16>, head_dim>("bf16", plain_kv_kernels(), 4e-3));
  cases.push_back(case_of<AffineCodec<8, head_dim, true>, head_dim>("int8", affine_kv_kernels<8, true>(), 0.012));
  cases.push_back(case_of<AffineCodec<4, head_dim, false>, head_dim>("int4", affine_kv_kernels<4, false>(), 0.14, head_dim % 64 == 0));
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_cases<64>(cases);
  add_cases<80>(cases);
  add_cases<96>(cases);
  add_cases<128>(cases);
  add_cases<256>(cases);
  const auto one = [](int i) { return std::span(test_kernels + i, 1); };
  cases.push_back(case_of<AffineCodec<4, 128, true>, 128>("int4 symmetric", one(0), 0.16));
  cases.push_back(case_of<AffineCodec<8, 64, false>, 128>("int8 biased, groups of 64", one(1), 0.012, false));
  cases.push_back(case_of<AffineCodec<4, 32, false>, 64>("int4, groups of 32", one(2), 0.13));
  cases.push_back(case_of<SquareRootCodec, 64>("square roots", one(3), 0.02, false));
  cases.push_back(case_of<SquareRootCodec, 128>("square roots", one(4), 0.02));
  cases.push_back(case_of<AffineCodec<4, 8, false>, 64>("int4, groups of 8", one(5), 0.1, false));
  return cases;
}

struct Knobs {
  int query_heads = 8, kv_heads = 2, group_size = 4, group_offset = 0;
  bool hadamard = false;
  int rope_pairs = LMKIT_ROPE_HALVES, rotary_dim = 0;  // 0: head_dim
  double soft_cap = 0;
  int window = 0;
  int block_tokens = 64;
};

constexpr double rope_base = 10000;

std::vector<float> rope_table(int positions, int rotary_dim) {
  std::vector<float> table(static_cast<std::size_t>(positions) * rotary_dim);
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < rotary_dim / 2; ++i) {
      const double angle = p * std::pow(rope_base, -2.0 * i / rotary_dim);
      table[static_cast<std::size_t>(p) * rotary_dim + 2 * i] = static_cast<float>(std::cos(angle));
      table[static_cast<std::size_t>(p) * rotary_dim + 2 * i + 1] = static_cast<float>(std::sin(angle));
    }
  return table;
}

std::vector<std::uint16_t> random_activations(std::size_t count, bool is_bf16, double spread, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.f, static_cast<float>(spread));
  std::vector<std::uint16_t> values(count);
  for (auto& value : values) value = activation_bits(normal(random), is_bf16);
  return values;
}

// A rig that runs steps and knows what they must give.
struct Run {
  Run(const Case& c, const Knobs& knobs, std::vector<int> max_lengths, int max_tokens, std::uint64_t seed)
      : c(c),
        knobs(knobs),
        random(seed),
        rig({knobs.query_heads, knobs.kv_heads, knobs.group_size, knobs.group_offset, c.head_dim, c.is_bf16, knobs.hadamard, knobs.block_tokens},
            c.kernels, max_lengths, max_tokens, seed),
        rotary_dim(knobs.rotary_dim ? knobs.rotary_dim : c.head_dim),
        table(rope_table(*std::ranges::max_element(max_lengths), rotary_dim)) {}

  struct Outcome {
    double q_error, k_error, v_error, out_error;
  };

  // Appends and attends; q is spread so that some probabilities are large.
  void append(const std::vector<int>& counts) {
    rig.begin_step(counts);
    const std::size_t q_count = std::size_t(rig.tokens) * q_stride(), kv_count = std::size_t(rig.tokens) * kv_stride();
    q_before = random_activations(q_count, c.is_bf16, 1.5, random);
    k = random_activations(kv_count, c.is_bf16, 1.0, random);
    v = random_activations(kv_count, c.is_bf16, 1.0, random);
    q_device = DeviceArray<std::uint16_t>(q_before);
    k_device = DeviceArray<std::uint16_t>(k);
    v_device = DeviceArray<std::uint16_t>(v);
    const KvAppend args{sizeof(KvAppend), rig.tokens, q_device.data(), k_device.data(), v_device.data(), q_stride(), kv_stride(),
                        knobs.rope_pairs, rotary_dim, table.data(), rig.pages(), rig.workspace.data()};
    REQUIRE(rig.kv.append(args, on(stream)) == Status::ok);
    stream.wait();
    out_device = DeviceArray<std::uint16_t>(std::size_t(rig.tokens) * out_stride());
    out_device.fill(0xff);
  }

  void attend() {
    const int longest = *std::ranges::max_element(rig.lengths);
    int most = 0;
    for (std::size_t s = 0; s < rig.lengths.size(); ++s) most = std::max(most, rig.starts[s + 1] - rig.starts[s]);
    const KvAttend args{sizeof(KvAttend), rig.tokens, q_device.data(), out_device.data(), q_stride(), out_stride(), scale(),
                        static_cast<float>(knobs.soft_cap), knobs.window, most, longest, rig.pages(), rig.workspace.data()};
    REQUIRE(rig.kv.attend(args, on(stream)) == Status::ok);
  }

  // Compares the last step with float64.
  Outcome judge() {
    stream.wait();
    const int D = c.head_dim;
    const auto q = q_device.download(), out = out_device.download();
    const auto bytes = rig.pool.download();
    RelativeError q_error, k_error, v_error, out_error;
    std::vector<double> x(D), expected(D);
    for (int s = 0; s < int(rig.lengths.size()); ++s) {
      const int count = rig.starts[s + 1] - rig.starts[s];
      if (count == 0) continue;
      for (int kv_head = 0; kv_head < knobs.kv_heads; ++kv_head) {
        std::vector<float> keys, values;
        rig.read(bytes, s, kv_head, c.reader, keys, values);
        for (int i = 0; i < count; ++i) {
          const int position = rig.position(s, i), token = rig.starts[s] + i;
          given(k, token * kv_stride() + kv_head * D, position, true, x);
          for (int d = 0; d < D; ++d) k_error.add(keys[std::size_t(position) * D + d], x[d]);
          given(v, token * kv_stride() + kv_head * D, position, false, x);
          for (int d = 0; d < D; ++d) v_error.add(values[std::size_t(position) * D + d], x[d]);
          for (int head = 0; head < knobs.query_heads; ++head) {
            if (rig.kv_head(head) != kv_head) continue;
            const std::size_t at = std::size_t(token) * q_stride() + head * D;
            given(q_before, at, position, true, x);
            for (int d = 0; d < D; ++d) {
              const double turned = activation(q[at + d], c.is_bf16);
              q_error.add(turned, x[d]);
              x[d] = turned;
            }
            reference_attention(x.data(), keys.data(), values.data(), position, D, scale(), knobs.soft_cap, knobs.window, expected.data());
            if (knobs.hadamard) reference_hadamard(expected.data(), D);
            for (int d = 0; d < D; ++d)
              out_error.add(activation(out[std::size_t(token) * out_stride() + head * D + d], c.is_bf16), expected[d]);
          }
        }
      }
    }
    return {q_error.value(), k_error.value(), v_error.value(), out_error.value()};
  }

  void check_judged() {
    const Outcome o = judge();
    const double rounding = c.is_bf16 ? 4e-3 : 1e-3;
    INFO(c.name << " head_dim " << c.head_dim << (c.is_bf16 ? " bf16" : " fp16") << " heads " << knobs.query_heads << "/" << knobs.kv_heads
                << " group " << knobs.group_size << "+" << knobs.group_offset << " window " << knobs.window << " cap " << knobs.soft_cap
                << " hadamard " << knobs.hadamard << ": q " << o.q_error << " k " << o.k_error << " v " << o.v_error << " out " << o.out_error);
    CHECK(o.q_error < rounding);
    CHECK(o.k_error < c.storage_error);
    CHECK(o.v_error < c.storage_error);
    CHECK(o.out_error < 1.5 * rounding);
  }

  // Rows are wider apart than they need be, so that strides are used.
  std::int64_t q_stride() const { return knobs.query_heads * c.head_dim + 16; }
  std::int64_t kv_stride() const { return knobs.kv_heads * c.head_dim + 8; }
  std::int64_t out_stride() const { return knobs.query_heads * c.head_dim + 32; }
  float scale() const { return static_cast<float>(1 / std::sqrt(double(c.head_dim))); }
  static Stream on(const DeviceStream& stream) {
    return {reinterpret_cast<lmkit_stream*>(static_cast<cudaStream_t>(stream)), nullptr};
  }

  void given(const std::vector<std::uint16_t>& from, std::size_t at, int position, bool rotate, std::vector<double>& x) const {
    for (int d = 0; d < c.head_dim; ++d) x[d] = activation(from[at + d], c.is_bf16);
    if (rotate) reference_rope(x.data(), position, rope_base, rotary_dim, knobs.rope_pairs);
    if (knobs.hadamard) reference_hadamard(x.data(), c.head_dim);
  }

  Case c;
  Knobs knobs;
  std::mt19937_64 random;
  KvRig rig;
  int rotary_dim;
  DeviceArray<float> table;
  std::vector<std::uint16_t> q_before, k, v;
  DeviceArray<std::uint16_t> q_device, k_device, v_device, out_device;
  DeviceStream stream;
};

std::uint64_t fresh_seed() { return std::random_device{}(); }

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
  for (const Case& c : all_cases()) {
    Run run(c, {}, plus(lengths, 1), 2000, seed);
    run.append(lengths);
    run.append(std::vector<int>(lengths.size(), 1));
    run.attend();
    run.check_judged();
  }
}

TEST_CASE("Every group size, also where a rank's cut falls inside a group") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto cases = all_cases();
  const std::vector<int> lengths = {3, 130, 64};
  for (const std::size_t index : {1, 2, 3, 13, 15, 16, 19, 22})
    for (const int group : {1, 2, 3, 5, 7, 8, 9, 12, 16}) {
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
      {.window = 100},
      {.window = 1},
      {.soft_cap = 3.0},
      {.hadamard = true, .soft_cap = 20.0, .window = 77, .block_tokens = 128},
  };
  for (const std::size_t index : {0, 3, 7, 9, 13, 15, 16, 19, 20, 23, 24})
    for (const Knobs& knobs : variants) {
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

TEST_CASE("Prefill in chunks, mixed with decodes, agrees with float64 for every codec and head_dim") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  for (const Case& c : all_cases()) {
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
  for (const std::size_t index : {13, 14, 15, 23}) {
    Run run(cases[index], {}, {500, 70, 3}, 600, seed);
    run.append({300, 60, 1});
    run.append({1, 1, 2});
    run.attend();
    run.stream.wait();
    const auto eager = run.out_device.download();
    cudaGraphExec_t graph = run.stream.capture([&] { run.attend(); });
    for (int n = 0; n < 5; ++n) {
      run.out_device.fill(0xff);
      run.rig.workspace.fill(0xff);
      check(cudaGraphLaunch(graph, run.stream));
      run.stream.wait();
      CHECK(run.out_device.download() == eager);
    }
    check(cudaGraphExecDestroy(graph));
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
