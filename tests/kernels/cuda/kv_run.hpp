// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the KV kernels share: the codecs, and Run, which appends and attends on the GPU and judges the step.
#pragma once

#include "test_codecs.hpp"

#include "kv_rig.hpp"

#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/kv_plain.hpp>

#include <catch.hpp>

#include <cstdio>
#include <cstdlib>
#include <future>

namespace lmkit::kernels::cuda {

inline bool no_device() {
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
  cases.push_back(case_of<AffineCodec<8, head_dim, false>, head_dim>("int8 with zero points", affine_kv_kernels<8, false>(), 0.012));
  cases.push_back(case_of<AffineCodec<4, head_dim, false>, head_dim>("int4", affine_kv_kernels<4, false>(), 0.14, head_dim % 64 == 0));
}

inline std::vector<Case> all_cases() {
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
  cases.push_back(case_of<SquareRootCodec, 256>("square roots", one(6), 0.02));
  return cases;
}

struct Knobs {
  int query_heads = 8, kv_heads = 2, group_size = 4, group_offset = 0;
  bool hadamard = false;
  int rope_pairs = LMKIT_ROPE_HALVES, rotary_dim = 0;  // 0: head_dim
  double soft_cap = 0;
  int window = 0;
  int block_tokens = 64;
  bool centred = false;
  double common = 0;  // how large a part is that all keys of a head share
  bool warpgroups = true;  // prefill by sm_90a's products where there are any
};

inline constexpr double rope_base = 10000;

inline std::vector<float> rope_table(int positions, int rotary_dim) {
  std::vector<float> table(static_cast<std::size_t>(positions) * rotary_dim);
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < rotary_dim / 2; ++i) {
      const double angle = p * std::pow(rope_base, -2.0 * i / rotary_dim);
      table[static_cast<std::size_t>(p) * rotary_dim + 2 * i] = static_cast<float>(std::cos(angle));
      table[static_cast<std::size_t>(p) * rotary_dim + 2 * i + 1] = static_cast<float>(std::sin(angle));
    }
  return table;
}

inline std::vector<std::uint16_t> random_activations(std::size_t count, bool is_bf16, double spread, std::mt19937_64& random) {
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
        rig({knobs.query_heads, knobs.kv_heads, knobs.group_size, knobs.group_offset, c.head_dim, c.is_bf16, knobs.hadamard, knobs.block_tokens, knobs.centred, knobs.warpgroups},
            c.kernels, max_lengths, max_tokens, seed),
        rotary_dim(knobs.rotary_dim ? knobs.rotary_dim : c.head_dim),
        table(rope_table(*std::ranges::max_element(max_lengths), rotary_dim)),
        common(knobs.kv_heads * c.head_dim) {
    for (double& x : common) x = std::normal_distribution<double>(0, 1)(this->random) * knobs.common;
  }

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
    for (std::size_t n = 0; n < kv_count && knobs.common > 0; ++n)
      if (const std::size_t at = n % kv_stride(); at < common.size())
        k[n] = activation_bits(static_cast<float>(activation(k[n], c.is_bf16) + common[at]), c.is_bf16);
    append_given();
  }

  // Appends q_before, k and v.
  void append_given() {
    q_device = DeviceArray<std::uint16_t>(q_before);
    k_device = DeviceArray<std::uint16_t>(k);
    v_device = DeviceArray<std::uint16_t>(v);
    const KvAppend args = append_args();
    REQUIRE(rig.kv.append(args, on(stream)) == Status::ok);
    stream.wait();
    out_device = DeviceArray<std::uint16_t>(std::size_t(rig.tokens) * out_stride());
    out_device.fill(0xff);
  }

  void attend() { REQUIRE(rig.kv.attend(attend_args(), on(stream)) == Status::ok); }

  KvAppend append_args() {
    return {sizeof(KvAppend), rig.tokens, q_device.data(), k_device.data(), v_device.data(), q_stride(), kv_stride(),
            knobs.rope_pairs, rotary_dim, table.data(), rig.pages(), rig.workspace.data()};
  }

  KvAttend attend_args() {
    int most = 0;
    for (std::size_t s = 0; s < rig.lengths.size(); ++s) most = std::max(most, rig.starts[s + 1] - rig.starts[s]);
    return {sizeof(KvAttend), rig.tokens, q_device.data(), out_device.data(), q_stride(), out_stride(), scale(), static_cast<float>(knobs.soft_cap),
            knobs.window, most, *std::ranges::max_element(rig.lengths), rig.pages(), rig.workspace.data()};
  }

  struct Errors {
    RelativeError q, k, v, out;
  };

  // Compares the last step with float64, sequences side by side.
  Outcome judge() {
    stream.wait();
    const auto q = q_device.download(), out = out_device.download();
    const auto bytes = rig.pool.download();
    std::vector<std::future<Errors>> parts;
    for (int s = 0; s < int(rig.lengths.size()); ++s)
      for (int kv_head = 0; kv_head < knobs.kv_heads; ++kv_head)
        parts.push_back(std::async(std::launch::async, [&, s, kv_head] { return judge_part(s, kv_head, q, out, bytes); }));
    Errors sum;
    for (auto& future : parts) {
      const Errors part = future.get();
      sum.q.add(part.q), sum.k.add(part.k), sum.v.add(part.v), sum.out.add(part.out);
    }
    return {sum.q.value(), sum.k.value(), sum.v.value(), sum.out.value()};
  }

  Errors judge_part(int s, int kv_head, const std::vector<std::uint16_t>& q, const std::vector<std::uint16_t>& out,
                    const std::vector<std::byte>& bytes) const {
    const int D = c.head_dim, count = rig.starts[s + 1] - rig.starts[s];
    Errors errors;
    if (count == 0) return errors;
    std::vector<double> x(D), expected(D);
    std::vector<float> keys, values;
    rig.read(bytes, s, kv_head, c.reader, keys, values);
    for (int i = 0; i < count; ++i) {
      const int position = rig.position(s, i), token = rig.starts[s] + i;
      given(k, token * kv_stride() + kv_head * D, position, true, x);
      for (int d = 0; d < D; ++d) errors.k.add(keys[std::size_t(position) * D + d], x[d]);
      given(v, token * kv_stride() + kv_head * D, position, false, x);
      for (int d = 0; d < D; ++d) errors.v.add(values[std::size_t(position) * D + d], x[d]);
      for (int head = 0; head < knobs.query_heads; ++head) {
        if (rig.kv_head(head) != kv_head) continue;
        const std::size_t at = std::size_t(token) * q_stride() + head * D;
        given(q_before, at, position, true, x);
        for (int d = 0; d < D; ++d) {
          const double turned = activation(q[at + d], c.is_bf16);
          errors.q.add(turned, x[d]);
          x[d] = turned;
        }
        reference_attention(x.data(), keys.data(), values.data(), position, D, scale(), knobs.soft_cap, knobs.window, expected.data());
        if (knobs.hadamard) reference_hadamard(expected.data(), D);
        for (int d = 0; d < D; ++d) errors.out.add(activation(out[std::size_t(token) * out_stride() + head * D + d], c.is_bf16), expected[d]);
      }
    }
    return errors;
  }

  void check_judged() {
    const Outcome o = judge();
    const double rounding = c.is_bf16 ? 4e-3 : 1e-3;
    INFO(c.name << " head_dim " << c.head_dim << (c.is_bf16 ? " bf16" : " fp16") << " heads " << knobs.query_heads << "/" << knobs.kv_heads
                << " group " << knobs.group_size << "+" << knobs.group_offset << " window " << knobs.window << " cap " << knobs.soft_cap
                << " hadamard " << knobs.hadamard << " warpgroups " << knobs.warpgroups << ": q " << o.q_error << " k " << o.k_error << " v " << o.v_error << " out " << o.out_error);
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
  std::vector<double> common;  // (kv_heads, head_dim)
  std::vector<std::uint16_t> q_before, k, v;
  DeviceArray<std::uint16_t> q_device, k_device, v_device, out_device;
  DeviceStream stream;
};

inline std::uint64_t fresh_seed() { return std::random_device{}(); }

// LMKIT_TEST_EVERY=n, for tools that make kernels a hundred times slower: loops that ask some_of or few leave every n-th turn.
inline int test_every() {
  const char* text = std::getenv("LMKIT_TEST_EVERY");
  return text ? std::max(1, std::atoi(text)) : 1;
}
// The first of those left is any.
template <class T>
std::vector<T> some_of(std::vector<T> all) {
  const std::size_t every = std::min<std::size_t>(test_every(), all.size());
  std::vector<T> some;
  for (std::size_t n = every > 1 ? fresh_seed() % every : 0; n < all.size(); n += every) some.push_back(all[n]);
  return some;
}
inline int few(int times) { return (times + test_every() - 1) / test_every(); }

}  // namespace lmkit::kernels::cuda
