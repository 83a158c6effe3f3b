// SPDX-License-Identifier: Apache-2.0
//
// kv-int8 and kv-int4: what they store, what attention makes of it, and that the plugins equal the C++ types bit for bit.
#include "../kernels/kv_reference.hpp"

#include <kv_int4.hpp>
#include <kv_int8.hpp>

#include <lmkit/builtin/kv_f16.hpp>
#include <lmkit/plugin/registry.hpp>

#include <catch.hpp>
#include <error_of.hpp>

#include <random>
#include <string>

using namespace kv_test;

namespace {

// What a page holds, and the kernels that know it.
struct Format {
  const char* name;
  int bits;
  bool symmetric_keys, symmetric_values, centred;
  const kernels::KvKernels& (*kernels)(int head_dim, kernels::CpuIsa);

  int key_strips() const { return symmetric_keys ? 1 : 2; }
  int value_strips() const { return symmetric_values ? 1 : 2; }
};

const Format int8_scale{"int8", 8, true, true, false, kernels::affine_kernels_for<KvInt8::ScaleOnly>};
const Format int8_zero_point{"int8 with zero points", 8, false, false, false, kernels::affine_kernels_for<KvInt8::ZeroPoint>};
const Format int4_plain{"int4", 4, false, false, false, kernels::affine_kernels_for<KvInt4::Plain>};
const Format int4_centred{"int4 with centred keys", 4, false, true, true, kernels::affine_kernels_for<KvInt4::Centred>};

// A cache of a format with the kernels of one instruction set.
struct AffineKv : kernels::CpuKv {
  AffineKv(const KvShape& shape, const Format& format, bool hadamard, kernels::CpuIsa isa)
      : CpuKv(shape, format.kernels(shape.head_dim, isa), hadamard) {}
};

std::vector<kernels::CpuIsa> isas() {
  std::vector<kernels::CpuIsa> all;
  for (auto isa : {kernels::CpuIsa::baseline, kernels::CpuIsa::avx2, kernels::CpuIsa::avx512})
    if (isa <= kernels::cpu_isa()) all.push_back(isa);
  return all;
}

double half_at(const std::byte* p) {
  Half h;
  std::memcpy(&h, p, 2);
  return to_float(h);
}

// A head as the page holds it: keys (head_dim, 64) and values (64, head_dim) of codes, then strips of scales and biases.
Head stored(const std::byte* part, int dim, const Format& format, Place place) {
  const int bits = format.bits, slot = place.position % 64, codes = 64 * dim * bits / 8;
  const bool symmetric = place.key ? format.symmetric_keys : format.symmetric_values;
  const std::byte* strip = part + 2 * codes + (place.key ? 0 : format.key_strips() * 128) + 2 * slot;
  const double scale = half_at(strip), bias = symmetric ? -scale * (1 << (bits - 1)) : half_at(strip + 128);
  Head x(dim);
  for (int d = 0; d < dim; ++d) {
    const int row = place.key ? d : slot, column = place.key ? slot : d, columns = place.key ? 64 : dim;
    int code;
    if (bits == 8) {
      code = std::to_integer<int>(part[(place.key ? 0 : codes) + row * columns + column]);
    } else {  // the first half of a row in low nibbles
      const int byte = std::to_integer<int>(part[(place.key ? 0 : codes) + row * columns / 2 + column % (columns / 2)]);
      code = column < columns / 2 ? byte & 15 : byte >> 4;
    }
    x[d] = scale * code + bias;
  }
  return x;
}

// The mean key that a block keeps behind its strips.
Head mean_key(const std::byte* part, int dim, const Format& format) {
  const std::byte* strip = part + 2 * 64 * dim * format.bits / 8 + (format.key_strips() + format.value_strips()) * 128;
  Head x(dim);
  for (int d = 0; d < dim; ++d) x[d] = half_at(strip + 2 * d);
  return x;
}

double distance2(const Head& a, const Head& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

}  // namespace

TEST_CASE("folded attention over ragged batches equals the reference on the stored codes") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Format format = GENERATE(int8_scale, int8_zero_point, int4_plain, int4_centred);
  const bool hadamard = GENERATE(true, false);
  INFO(format.name << ", hadamard " << hadamard);
  Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {1, 64, 65, 400}};
  SECTION("all visible") {}
  SECTION("window") { p.window = 70; }
  SECTION("soft cap") { p.soft_cap = 2.f; }
  SECTION("a cut inside a group") { p.shape = shape_of(5, 3, 64, 2, 3); }
  SECTION("head_dim") {
    const int dim = GENERATE(80, 96, 128, 256);
    p.shape = shape_of(6, 2, dim), p.rotary_dim = dim, p.lengths = {3, 130};
  }
  const Inputs in(p, seed);
  for (auto isa : isas()) {
    AffineKv kv(p.shape, format, hadamard, isa);
    Cache cache(p, kv, 2, seed);
    cache.run_ragged(in, seed);
    const auto want = reference(p, in, [&](Head x, Place place) {
      const int dim = p.shape.head_dim, bits = format.bits;
      Head read = stored(cache.part(place), dim, format, place);
      Head coded = hadamard ? kv_test::hadamard(x) : x;
      Head centre(dim);
      if (format.centred && place.key && place.position >= 64) {
        Place before = place;
        before.position -= 64;
        centre = mean_key(cache.part(before), dim, format);
      }
      for (int d = 0; d < dim; ++d) coded[d] -= centre[d];
      const auto [low, high] = std::minmax_element(coded.begin(), coded.end());
      const bool symmetric = place.key ? format.symmetric_keys : format.symmetric_values;
      const double step = symmetric ? std::max(-*low, *high) / (1 << (bits - 1)) : (*high - *low) / ((1 << bits) - 1);
      CHECK(distance2(read, coded) <= step * step / 4 * x.size() * 1.3);
      for (int d = 0; d < dim; ++d) read[d] += centre[d];
      return hadamard ? kv_test::hadamard(read) : read;
    });
    INFO(kernels::name_of(isa));
    CHECK(error_of(cache.out(), want) < 1e-4);
  }
}

TEST_CASE("a head_dim without kernels of its own is decoded group by group") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const auto check = [&]<int bits>(const Format& format) {
    using Codec = kernels::AffineCodec<bits, 8, false>;
    const Problem p{.shape = shape_of(4, 2, 40), .rotary_dim = 40, .lengths = {200, 70}};
    const Inputs in(p, seed);
    for (auto isa : isas()) {
      INFO(format.name << ' ' << kernels::name_of(isa));
      AffineKv kv(p.shape, format, false, isa);
      Cache cache(p, kv, 3, seed);
      cache.run_ragged(in, seed);
      // Over what is stored, since a code may round the other way: keys (64, 5), then values.
      const auto want = reference(p, in, [&](Head x, Place place) {
        const std::byte* packed = cache.part(place) + ((place.key ? 0 : 64) + place.position % 64) * 5 * sizeof(typename Codec::Packed);
        for (std::size_t begin = 0; begin < x.size(); begin += 8, packed += sizeof(typename Codec::Packed)) {
          const Head given(x.begin() + begin, x.begin() + begin + 8);
          typename Codec::Packed group;
          std::memcpy(&group, packed, sizeof group);
          const Vec<float, 8> read = Codec().decode(group);
          const Head stored(&read[0], &read[0] + 8);
          const auto [low, high] = std::minmax_element(given.begin(), given.end());
          const double step = (*high - *low) / ((1 << bits) - 1);
          CHECK(distance2(stored, given) <= step * step / 4 * 8 * 1.3);
          std::ranges::copy(stored, x.begin() + begin);
        }
        return x;
      });
      CHECK(error_of(cache.out(), want) < 1e-4);
    }
  };
  check.operator()<8>(int8_zero_point);
  check.operator()<4>(int4_plain);
}

TEST_CASE("codes depend neither on workers nor on the batch nor on the chunks") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Format format = GENERATE(int8_zero_point, int4_plain, int4_centred);
  const Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {700, 40, 300}};
  const Inputs in(p, seed);
  for (auto isa : isas()) {
    AffineKv kv(p.shape, format, true, isa);
    Cache whole(p, kv, 1, seed), ragged(p, kv, 3, seed + 1);
    whole.step(in, p.lengths);
    ragged.run_ragged(in, seed);
    for (std::size_t s = 0; s < p.lengths.size(); ++s)
      CHECK(std::memcmp(whole.out()[s].data(), ragged.out()[s].data(), whole.out()[s].size() * 4) == 0);
  }
}

TEST_CASE("what keys have in common costs centred codes nothing") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Problem p{.shape = shape_of(9, 3, 64), .rope_pairs = LMKIT_ROPE_NONE, .lengths = {900}};
  Inputs in(p, seed), common(p, seed + 1);
  for (std::size_t i = 0; i < in.k[0].size(); ++i) in.k[0][i] += 6 * common.k[0][i % (3 * 64)];
  const auto want = reference(p, in, [](Head x, Place) { return x; });
  // Relative rms error of the last tokens: the first block, whose keys are plain, matters little to them.
  const auto error = [&](const Format& format) {
    AffineKv kv(p.shape, format, true, kernels::cpu_isa());
    Cache cache(p, kv, 2, seed);
    cache.run_ragged(in, seed);
    double miss = 0, size = 0;
    for (std::size_t i = 640 * 9 * 64; i < want[0].size(); ++i) {
      miss += (cache.out()[0][i] - want[0][i]) * (cache.out()[0][i] - want[0][i]);
      size += want[0][i] * want[0][i];
    }
    return std::sqrt(miss / size);
  };
  const double plain = error(int4_plain), centred = error(int4_centred);
  WARN("error of 4-bit attention: plain keys " << plain << ", centred keys " << centred);
  CHECK(centred < 0.6 * plain);
}

TEST_CASE("fitting codes and line to each other beats the line through the ends") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  double fitted = 0, ends = 0;
  for (int repeat = 0; repeat < 2000; ++repeat) {
    Vec<float, 64> x{};
    for (int i = 0; i < 64; ++i) x[i] = normal(random);
    const kernels::AffineCodec<4, 64, false> codec;
    const auto y = codec.decode(codec.encode(x));
    const float low = *std::min_element(x.values, x.values + 64), high = *std::max_element(x.values, x.values + 64);
    const float step = (high - low) / 15;
    for (int i = 0; i < 64; ++i) {
      fitted += (x[i] - y[i]) * (x[i] - y[i]);
      const float plain = low + step * std::round((x[i] - low) / step);
      ends += (x[i] - plain) * (x[i] - plain);
    }
  }
  WARN("squared error of 4-bit codes: " << fitted / ends << " of that of the line through the ends");
  CHECK(fitted < 0.9 * ends);
}

TEST_CASE("constant, tiny, huge and zero heads survive") {
  for (const float value : {0.f, 1.f, -3.5f, 1e-7f, -60000.f}) {
    Vec<float, 64> x{};
    for (int i = 0; i < 64; ++i) x[i] = value;
    const auto near = [&](float y) { return std::abs(y - value) <= std::max(std::abs(value) / 500, 6e-8f); };
    const kernels::AffineCodec<4, 64, false> int4;
    const kernels::AffineCodec<8, 64, true> int8;
    const kernels::AffineCodec<4, 64, true> int4_symmetric;
    CHECK(near(int4.decode(int4.encode(x))[17]));
    CHECK(std::abs(int8.decode(int8.encode(x))[17] - value) <= std::max(std::abs(value) / 100, 6e-8f * 128));
    CHECK(std::isfinite(int4_symmetric.decode(int4_symmetric.encode(x))[17]));
  }
}

TEST_CASE("bytes of a block") {
  const KvShape shape = shape_of(9, 3, 64);
  const double half = static_cast<double>(KvF16(shape).block_bytes());
  CHECK(half == 3 * 2 * 2 * 64 * 64);
  CHECK(KvInt8(shape).block_bytes() / half == Approx(0.53125));
  CHECK(KvInt8(shape, KvInt8::Options{.zero_point = false}).block_bytes() / half == Approx(0.515625));
  CHECK(KvInt4(shape).block_bytes() / half == Approx(0.28125));
  CHECK(KvInt4(shape, KvInt4::Options{.hadamard = false, .centred = false}).block_bytes() / half == Approx(0.28125));
}

TEST_CASE("a plugin loaded from its file equals the C++ type bit for bit") {
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {130, 5, 300}};
  const Inputs in(p, seed);
  const PluginRegistry registry({LMKIT_TEST_PLUGINS});
  const auto same = [&](const std::string& spec, auto mine) {
    AnyKvBackend theirs(*registry.load(parse_plugin_spec(spec)).kv(), p.shape);
    CHECK(theirs.block_bytes() == mine.block_bytes());
    Cache a(p, theirs, 2, seed), b(p, mine, 3, seed);
    a.run_ragged(in, seed);
    b.run_ragged(in, seed + 1);
    for (std::size_t s = 0; s < p.lengths.size(); ++s)
      CHECK(std::memcmp(a.out()[s].data(), b.out()[s].data(), a.out()[s].size() * 4) == 0);
  };
  same("kv-int8", KvInt8(p.shape));
  same("kv-int8:zero-point=false", KvInt8(p.shape, KvInt8::Options{.zero_point = false}));
  same("kv-int4", KvInt4(p.shape));
  same("kv-int4:rotation=none,centre=none", KvInt4(p.shape, KvInt4::Options{.hadamard = false, .centred = false}));
}

TEST_CASE("a plugin refuses a shape it does not support and says why") {
  const PluginRegistry registry({LMKIT_TEST_PLUGINS});
  for (const char* name : {"kv-int8", "kv-int4"}) {
    KvShape shape = shape_of(9, 3, 64);
    shape.head_dim = 12;
    std::string reason;
    try {
      AnyKvBackend backend(*registry.load(parse_plugin_spec(name)).kv(), shape);
    } catch (const Error& error) {
      reason = error.what();
    }
    INFO(reason);
    CHECK(reason.find("head_dim 12") != std::string::npos);
    CHECK(reason.find("multiple of 8") != std::string::npos);
  }
}

TEST_CASE("a codec written in twenty lines and built apart serves attention") {  // examples/05_codec_plugin
  const std::uint32_t seed = fresh_seed();
  INFO("seed " << seed);
  const Problem p{.shape = shape_of(9, 3, 64), .rotary_dim = 64, .lengths = {200, 70}};
  const Inputs in(p, seed);
  const auto source = PluginRegistry({}).load(parse_plugin_spec(LMKIT_TEST_CODEC_PLUGIN)).kv();
  AnyKvBackend kv(*source, p.shape);
  CHECK(kv.block_bytes() == 3 * 2 * 64 * 2 * 18);
  Cache cache(p, kv, 2, seed);
  cache.run_ragged(in, seed);
  const auto want = reference(p, in, [&](Head x, Place place) {  // keys (64, 2) then values of {codes[16], scale}
    constexpr double levels[] = {-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
                                 0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1};
    const std::byte* packed = cache.part(place) + ((place.key ? 0 : 64) + place.position % 64) * 2 * 18;
    Head read(64);
    for (int d = 0; d < 64; ++d) {
      const std::byte* group = packed + d / 32 * 18;
      read[d] = half_at(group + 16) * levels[std::to_integer<int>(group[d % 32 / 2]) >> 4 * (d % 2) & 15];
    }
    CHECK(distance2(read, x) < 0.03 * distance2(x, Head(64)));
    return read;
  });
  CHECK(error_of(cache.out(), want) < 1e-4);
  const std::string reason = ::error_of(ErrorKind::plugin, [&] { AnyKvBackend(*source, shape_of(2, 2, 40)); });
  CHECK(reason.find("a multiple of the codec's group, 32") != std::string::npos);
}
