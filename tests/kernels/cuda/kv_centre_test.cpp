// SPDX-License-Identifier: Apache-2.0
//
// Keys stored as differences from the mean key of the block before, and 4-bit codes as the CPU's codec chooses them.
#include "kv_run.hpp"

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::cuda;

namespace {

template <int head_dim>
Case int4_case(bool is_bf16 = true) {
  return case_of<AffineCodec<4, head_dim, false>, head_dim>("int4", affine_kv_kernels<4, false>(), 0.14, is_bf16);
}

std::vector<Case> int4_cases() { return {int4_case<64>(), int4_case<80>(), int4_case<96>(false), int4_case<128>(), int4_case<256>()}; }

}  // namespace

TEST_CASE("Attention over centred keys agrees with float64, decoding and in chunks, for every head_dim") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const std::vector<int> lengths = {1, 63, 64, 65, 200, 650, 31, 128};
  const std::vector<Knobs> variants = {
      {.query_heads = 4, .kv_heads = 2, .group_size = 2, .centred = true},
      {.query_heads = 12, .kv_heads = 1, .group_size = 12, .hadamard = true, .centred = true, .common = 2},
      {.query_heads = 2, .kv_heads = 2, .group_size = 1, .rope_pairs = LMKIT_ROPE_NONE, .block_tokens = 128, .centred = true, .common = 3},
      {.query_heads = 4, .kv_heads = 2, .group_size = 2, .hadamard = true, .soft_cap = 10, .window = 130, .centred = true, .common = 1}};
  for (const Case& c : some_of(int4_cases()))
    for (const Knobs& knobs : some_of(variants)) {
      Run run(c, knobs, {400, 70, 70, 70, 280, 730, 40, 260}, 2000, seed);
      run.append(lengths);
      run.attend();
      run.check_judged();
      run.append(std::vector<int>(lengths.size(), 1));
      run.attend();
      run.check_judged();
      run.append({200, 1, 2, 0, 64, 70, 1, 129});
      run.attend();
      run.check_judged();
    }
}

TEST_CASE("A block's mean is that of its keys") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  for (const Case& c : int4_cases()) {
    const Knobs knobs{.rope_pairs = LMKIT_ROPE_NONE, .centred = true, .common = 2};
    Run run(c, knobs, {200}, 200, seed);
    run.append({150});
    run.stream.wait();
    const auto bytes = run.rig.pool.download();
    for (int block = 0; block < 3; ++block)
      for (int head = 0; head < knobs.kv_heads; ++head) {
        const int begin = 64 * block, end = std::min(150, begin + 64);
        const auto mean = run.rig.mean_of(bytes.data() + run.rig.table[block] * run.rig.block_stride + run.rig.layer_offset + head * run.rig.head_bytes());
        RelativeError error;
        for (int d = 0; d < c.head_dim; ++d) {
          double sum = 0;
          for (int t = begin; t < end; ++t) sum += activation(run.k[t * run.kv_stride() + head * c.head_dim + d], c.is_bf16);
          error.add(mean[d], sum / (end - begin));
        }
        CHECK(error.value() < 2e-3);
      }
  }
}

TEST_CASE("Pages do not depend on how a prompt is cut, nor on the batch") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  struct Kind {
    Case c;
    Knobs knobs;
  };
  const auto cases = all_cases();
  for (const Kind& kind : some_of<Kind>({{int4_case<128>(), {.hadamard = true, .centred = true, .common = 1}},
                                         {int4_case<64>(), {.centred = true}},
                                         {int4_case<256>(), {.hadamard = true, .block_tokens = 128, .centred = true}},
                                         {int4_case<128>(), {.hadamard = true}},
                                         {cases[12], {.rotary_dim = 64}},
                                         {cases[13], {}},
                                         {cases[14], {.rope_pairs = LMKIT_ROPE_ADJACENT}},
                                         {cases[15], {.hadamard = true}},
                                         {cases[19], {.rotary_dim = 100}},
                                         {case_of<SquareRootCodec, 128>("square roots", std::span(test_kernels + 4, 1), 0.02), {}}})) {
    constexpr int length = 333;
    std::vector<std::vector<int>> cuts = {{length}, {64, 64, 64, 141}, {1, 62, 1, 1, 200, 2, 66}, std::vector<int>(length, 1)};
    std::vector<std::byte> expected;
    std::vector<std::uint16_t> k, v;
    for (std::size_t cut = 0; cut < cuts.size(); ++cut) {
      // odd cuts share the step with three sequences that get nothing, so tokens are fewer than sequences in their short chunks
      const int others = cut % 2 ? 3 : 0;
      Run run(kind.c, kind.knobs, std::vector<int>(1 + others, length), length, seed);
      run.rig.table = {};
      Run first(kind.c, kind.knobs, {length}, length, seed);  // its table, which is the same for every cut
      run.rig.table.assign((1 + others) * first.rig.table_stride, 0);
      std::ranges::copy(first.rig.table, run.rig.table.begin());
      run.rig.table_stride = first.rig.table_stride;
      run.rig.device_table.upload(run.rig.table);
      run.rig.pool = DeviceArray<std::byte>(first.rig.pool.size());
      run.rig.pool.fill(0xff);
      int done = 0;
      for (const int count : cuts[cut]) {
        std::vector<int> counts(1 + others, 0);
        counts[0] = count;
        if (cut == 0) {
          run.append(counts);
          k = run.k, v = run.v;
        } else {
          run.rig.begin_step(counts);
          const auto part = [&](const std::vector<std::uint16_t>& all) {
            return std::vector<std::uint16_t>(all.begin() + done * run.kv_stride(), all.begin() + (done + count) * run.kv_stride());
          };
          run.k = part(k), run.v = part(v);
          run.q_before.assign(count * run.q_stride(), 0);
          run.append_given();
        }
        done += count;
      }
      if (cut == 0) expected = run.rig.pool.download();
      else CHECK(run.rig.pool.download() == expected);
    }
  }
}

TEST_CASE("What keys have in common costs centred codes nothing on the GPU") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  // Relative error against attention over the keys and values as they were given, of so many sequences that chance exceeds the bound once in 10^5.
  const auto error = [&](bool centred) {
    constexpr int sequences = 16, length = 900;
    RelativeError miss;
    for (int n = 0; n < 4; ++n) {
      Run run(int4_case<64>(), {.hadamard = true, .rope_pairs = LMKIT_ROPE_NONE, .centred = centred, .common = 6}, std::vector<int>(sequences, length + 1),
              sequences * length, seed + n);
      run.append(std::vector<int>(sequences, length));
      const auto k = run.k, v = run.v;
      run.append(std::vector<int>(sequences, 1));
      run.attend();
      run.stream.wait();
      const auto out = run.out_device.download();
      for (int sequence = 0; sequence < sequences; ++sequence)
        for (int head = 0; head < run.knobs.query_heads; ++head) {
          std::vector<float> keys, values;
          const int kv_head = run.rig.kv_head(head);
          for (int t = 0; t <= length; ++t)
            for (int d = 0; d < 64; ++d) {
              const std::size_t at = (t < length ? sequence * length + t : sequence) * run.kv_stride() + kv_head * 64 + d;
              keys.push_back(static_cast<float>(activation((t < length ? k : run.k)[at], true)));
              values.push_back(static_cast<float>(activation((t < length ? v : run.v)[at], true)));
            }
          std::vector<double> q(64), expected(64);
          for (int d = 0; d < 64; ++d) q[d] = activation(run.q_before[sequence * run.q_stride() + head * 64 + d], true);
          reference_attention(q.data(), keys.data(), values.data(), length, 64, run.scale(), 0, 0, expected.data());
          for (int d = 0; d < 64; ++d) miss.add(activation(out[sequence * run.out_stride() + head * 64 + d], true), expected[d]);
        }
    }
    return miss.value();
  };
  const double plain = error(false), centred = error(true);
  WARN("error of 4-bit attention: plain keys " << plain << ", centred keys " << centred);
  CHECK(centred < 0.6 * plain);
}

TEST_CASE("4-bit codes are as good as the CPU's codec chooses them") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  constexpr int dim = 128, length = 512;
  using Codec = AffineCodec<4, dim, false>;
  Run run(int4_case<dim>(), {.rope_pairs = LMKIT_ROPE_NONE}, {length}, length, seed);
  run.append({length});
  run.stream.wait();
  const auto bytes = run.rig.pool.download();
  double here = 0, there = 0;
  int same = 0;
  for (int head = 0; head < run.knobs.kv_heads; ++head) {
    std::vector<float> keys, values;
    run.rig.read(bytes, 0, head, run.c.reader, keys, values);
    for (int t = 0; t < length; ++t) {
      Vec<float, dim> x;
      for (int d = 0; d < dim; ++d) x[d] = static_cast<float>(activation(run.k[t * run.kv_stride() + head * dim + d], true));
      const auto chosen = Codec{}.decode(Codec{}.encode(x));
      bool equal = true;
      for (int d = 0; d < dim; ++d) {
        const float stored = keys[std::size_t(t) * dim + d];
        here += (stored - x[d]) * (stored - x[d]);
        there += (chosen[d] - x[d]) * (chosen[d] - x[d]);
        equal &= stored == chosen[d];
      }
      same += equal;
    }
  }
  CHECK(same > 0.95 * length * run.knobs.kv_heads);
  CHECK(here < 1.001 * there);
}
