// SPDX-License-Identifier: Apache-2.0
//
// Products of matrices on the GPU against float64, and the file that remembers which algorithm runs them.
#include "kv_run.hpp"

#include "../../../kernels/cuda/gemm_cache.hpp"
#include "../../../kernels/cuda/gemm_few.hpp"
#include "../../../kernels/cuda/gemm_library.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/kernels/cuda/gemm.hpp>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <unistd.h>

using namespace lmkit;
using namespace lmkit::kernels::cuda;
using lmkit::kernels::LinearEnd;

namespace fs = std::filesystem;

namespace {

// A folder of this test, where the cache is kept while it lives.
struct CacheFolder {
  CacheFolder() : path(fs::temp_directory_path() / ("lmkit-gemm-test-" + std::to_string(getpid()))) {
    if (const char* value = std::getenv("XDG_CACHE_HOME")) before = value;
    fs::remove_all(path);
    setenv("XDG_CACHE_HOME", path.c_str(), 1);
  }
  ~CacheFolder() {
    before ? setenv("XDG_CACHE_HOME", before->c_str(), 1) : unsetenv("XDG_CACHE_HOME");
    fs::remove_all(path);
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) files.push_back(entry.path());
    return files;
  }
  fs::path path;
  std::optional<std::string> before;
};

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

constexpr GemmChoice library(int n) { return {GemmChoice::Source::library, n}; }
constexpr GemmChoice own(int n) { return {GemmChoice::Source::own, n}; }

const GemmShape some{576, 1536, Dtype::bf16, Dtype::f32};

struct Product {
  GemmShape shape;
  bool has_bias;
};

// LMKIT_TEST_OWN: for a tool that does not bear cuBLASLt's kernels, none of them runs.
bool own_alone() { return std::getenv("LMKIT_TEST_OWN") != nullptr; }

// Those counts that need no kernel of cuBLASLt, where that is wanted.
std::vector<std::int64_t> counts_of(std::vector<std::int64_t> counts) {
  if (own_alone()) std::erase_if(counts, [most = FewGemm().usual_tokens()](std::int64_t tokens) { return tokens > most; });
  return some_of(counts);
}

// Then too, the file gets a choice of ours for each of a product's buckets, so that nothing is timed.
void choose_own(const std::vector<Product>& products, std::int64_t max_tokens, std::mt19937_64& random) {
  if (!own_alone()) return;
  const FewGemm few;
  GemmCache cache(GemmCache::path_for(gpu_name(), CublasLt().version()));
  for (const auto& [shape, has_bias] : products)
    for (const std::int64_t tokens : gemm_buckets(max_tokens)) {
      std::vector<int> ways;
      for (int way = 0; way < FewGemm::ways; ++way)
        if (few.can_run(way, shape, tokens)) ways.push_back(way);
      REQUIRE(!ways.empty());
      cache.add(gemm_key(shape, has_bias, tokens), own(ways[random() % ways.size()]));
    }
  cache.save();
}

// y of the shape's type, in a double
double value_of(const std::vector<std::byte>& y, std::size_t n, Dtype type) {
  if (type == Dtype::f32) {
    float x;
    std::memcpy(&x, y.data() + 4 * n, 4);
    return x;
  }
  std::uint16_t x;
  std::memcpy(&x, y.data() + 2 * n, 2);
  return activation(x, type == Dtype::bf16);
}

// One product's memory, on the host and on the device.
struct GemmRig {
  GemmRig(const Product& product, std::int64_t max_tokens, std::mt19937_64& random)
      : product(product),
        is_bf16(product.shape.dtype == Dtype::bf16),
        weights(random_activations(product.shape.rows * product.shape.cols, is_bf16, 1.0, random)),
        bias(random_activations(product.shape.rows, is_bf16, 20.0, random)),
        x(random_activations(max_tokens * product.shape.cols, is_bf16, 1.0, random)),
        before(random_activations(max_tokens * product.shape.rows, is_bf16, 50.0, random)),
        weights_device(weights),
        bias_device(bias),
        x_device(x),
        y_scratch(max_tokens * product.shape.rows),
        y_device(max_tokens * product.shape.width() * size_of(product.shape.out)),
        workspace(Gemm::workspace_bytes) {
    workspace.fill(0xff);
  }

  GemmArgs args(std::int64_t tokens) {
    return {.weights = weights_device.data(),
            .bias = product.has_bias ? bias_device.data() : nullptr,
            .x = x_device.data(),
            .y = y_device.data(),
            .tokens = tokens,
            .y_scratch = y_scratch.data()};
  }

  void prepare(Gemm& gemm, std::int64_t max_tokens) {
    gemm.prepare(product.shape, args(max_tokens), workspace.data(), Run::on(stream));
    x_device.upload(x);
  }

  // y as it is before a product: what is added to, and nothing behind it
  void reset_y(std::int64_t tokens) {
    y_device.fill(0xff);
    if (product.shape.end != LinearEnd::add) return;
    check(cudaMemcpy(y_device.data(), before.data(), tokens * product.shape.rows * 2, cudaMemcpyHostToDevice));
    check(cudaStreamSynchronize(nullptr));  // the copy may go on when cudaMemcpy has returned
  }

  std::vector<std::byte> run(Gemm& gemm, std::int64_t tokens) {
    reset_y(tokens);
    y_scratch.fill(0xff);
    REQUIRE(gemm.run(product.shape, args(tokens), workspace.data(), Run::on(stream)) == Status::ok);
    stream.wait();
    return y_device.download();
  }

  // ‖y − reference‖ / ‖reference‖ over `samples` random rows of every token; y has values for no other token.
  double error(const std::vector<std::byte>& y, std::int64_t tokens, int samples, std::mt19937_64& random) {
    const GemmShape& shape = product.shape;
    RelativeError error;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (int s = 0; s < samples; ++s) {
        const std::int64_t row = std::uniform_int_distribution<std::int64_t>(0, product.shape.width() - 1)(random), at = t * product.shape.width() + row;
        double expected = dot(row, t);
        if (shape.end == LinearEnd::add) expected += activation(before[at], is_bf16);
        if (shape.end == LinearEnd::gate) expected = expected / (1 + std::exp(-expected)) * dot(row + shape.rows / 2, t);
        error.add(value_of(y, at, shape.out), expected);
      }
    }
    return error.value();
  }

  double dot(std::int64_t row, std::int64_t token) const {
    const std::int64_t cols = product.shape.cols;
    double sum = product.has_bias ? activation(bias[row], is_bf16) : 0;
    for (std::int64_t c = 0; c < cols; ++c) sum += double(activation(weights[row * cols + c], is_bf16)) * activation(x[token * cols + c], is_bf16);
    return sum;
  }

  Product product;
  bool is_bf16;
  std::vector<std::uint16_t> weights, bias, x, before;
  DeviceArray<std::uint16_t> weights_device, bias_device, x_device, y_scratch;
  DeviceArray<std::byte> y_device, workspace;
  DeviceStream stream;
};

double tolerance(const GemmShape& shape) {
  const double rounding = shape.out == Dtype::f32 ? 1e-5 : shape.out == Dtype::bf16 ? 4e-3 : 5e-4;
  return shape.end == LinearEnd::gate ? 1.5 * rounding : rounding;  // gate and up may be rounded too
}

// Every token's row was written whole, and nothing behind them.
void check_extent(const std::vector<std::byte>& y, const Product& product, std::int64_t tokens) {
  const GemmShape& shape = product.shape;
  const std::size_t used = tokens * product.shape.width();
  bool written = true;
  for (std::size_t n = 0; n < used; ++n) written = written && !std::isnan(value_of(y, n, shape.out));
  CHECK(written);
  CHECK(std::all_of(y.begin() + used * size_of(shape.out), y.end(), [](std::byte b) { return b == std::byte{0xff}; }));
}

}  // namespace

TEST_CASE("Buckets of token counts ascend to the largest, and none is much larger than the one before") {
  std::mt19937_64 random(fresh_seed());
  for (int n = 0; n < 200; ++n) {
    const std::int64_t max_tokens = std::uniform_int_distribution<std::int64_t>(1, 20'000)(random);
    const auto buckets = gemm_buckets(max_tokens);
    REQUIRE(buckets.back() == max_tokens);
    REQUIRE(std::ranges::is_sorted(buckets, std::less_equal<>{}));  // no two are equal
    for (std::size_t b = 3; b < buckets.size(); ++b) REQUIRE(2 * buckets[b] <= 4 * buckets[b - 1]);
  }
  CHECK(gemm_buckets(6) == std::vector<std::int64_t>{1, 4, 6});
  CHECK(gemm_buckets(200) == std::vector<std::int64_t>{1, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 192, 200});
  CHECK(gemm_buckets(0).empty());
}

TEST_CASE("What was measured is found again, beside what others measured") {
  const CacheFolder folder;
  const fs::path path = GemmCache::path_for("NVIDIA H200/../x", 130100);
  CHECK(path.parent_path() == folder.path / "lmkit/gemm");
  GemmCache first(path), second(path);
  first.add(gemm_key(some, false, 8), library(3));
  first.add(gemm_key(some, true, 8), own(1));
  first.save();
  second.add(gemm_key(some, false, 16), library(0));
  second.add(gemm_key(some, true, 8), own(2));
  second.save();
  const GemmCache again(path);
  CHECK(again.find(gemm_key(some, false, 8)) == library(3));
  CHECK(again.find(gemm_key(some, false, 16)) == library(0));
  CHECK(again.find(gemm_key(some, true, 8)) == own(2));
  CHECK_FALSE(again.find(gemm_key(some, true, 16)));
  CHECK(folder.files().size() == 1);
}

TEST_CASE("Lines of the cache that do not read as a choice are skipped") {
  const CacheFolder folder;
  const fs::path path = GemmCache::path_for("GPU", 1);
  fs::create_directories(path.parent_path());
  const std::string key = gemm_key(some, false, 8);
  for (const std::string value : {"library -1", "library 64", "library 99999999999999999999", "library", "library ", "library 3 ", "library 0x3",
                                  "own  1", "other 1", "", " = own 1", "library +3"}) {
    std::ofstream(path) << "\n=\n = \n" << std::string(100, '=') << '\n' << std::string("\0\xff\x80 = own 1\n", 12) << key << " = " << value << '\n'
                        << gemm_key(some, true, 8) << " = own 1\n";
    INFO(value);
    const GemmCache cache(path);
    CHECK_FALSE(cache.find(key));
    CHECK(cache.find(gemm_key(some, true, 8)) == own(1));
  }
  std::ofstream(path) << key << " = library 3\n" << std::string(1'000'000, 'x') << '\n' << gemm_key(some, true, 8) << " = own 1";
  CHECK(GemmCache(path).find(key) == library(3));
  std::ofstream(path) << gemm_key(some, true, 8) << " = own 1\n" << key << " = library 1";  // cut off within a number, which is still one
  CHECK(GemmCache(path).find(key) == library(1));
}

TEST_CASE("A cache that cannot be read or written is no error") {
  CacheFolder folder;
  fs::create_directories(folder.path);
  std::ofstream(folder.path / "lmkit") << "a file where a folder should be";
  GemmCache cache(GemmCache::path_for("GPU", 1));
  cache.add("key", own(1));
  cache.save();
  CHECK(cache.find("key") == own(1));
  GemmCache nowhere{fs::path()};
  nowhere.add("key", own(1));
  nowhere.save();
}

TEST_CASE("Products of matrices agree with float64 for any number of tokens") {
  NEEDS_DEVICE();
  const CacheFolder folder;
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto products = some_of<Product>({{{576, 1536, Dtype::bf16, Dtype::bf16}, false}, {{192, 576, Dtype::f16, Dtype::f16}, true},
                                          {{1536, 576, Dtype::bf16, Dtype::f32}, true}, {{960, 576, Dtype::f16, Dtype::f32}, false},
                                          {{1536, 4096, Dtype::bf16, Dtype::bf16}, true}, {{8, 8, Dtype::bf16, Dtype::bf16}, true},
                                          {{49152, 576, Dtype::f16, Dtype::f32}, false}, {{256, 14336, Dtype::f16, Dtype::f16}, false},
                                          {{1000, 1000, Dtype::bf16, Dtype::f32}, true},
                                          {{4096, 4096, Dtype::bf16, Dtype::bf16, LinearEnd::add}, false},
                                          {{576, 1536, Dtype::f16, Dtype::f16, LinearEnd::add}, true},
                                          {{3072, 576, Dtype::f16, Dtype::f16, LinearEnd::gate}, false},
                                          {{48, 1000, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, true},
                                          {{1024, 4096, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, false}});
  const auto counts = counts_of({1, 2, 3, 8, 9, 16, 17, 24, 33, 64, 65, 200, 300});
  choose_own(products, counts.back(), random);
  Gemm gemm;
  for (const Product& product : products) {
    GemmRig rig(product, counts.back(), random);
    rig.prepare(gemm, counts.back());
    for (const std::int64_t tokens : counts) {
      const auto y = rig.run(gemm, tokens);
      INFO(gemm_key(product.shape, product.has_bias, tokens));
      check_extent(y, product, tokens);
      CHECK(rig.error(y, tokens, tokens < 10 ? 200 : 20, random) < tolerance(product.shape));
    }
  }
}

TEST_CASE("Every way of the kernels for few tokens agrees with float64") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const FewGemm few;
  int ran = 0;
  for (const Product& product : some_of<Product>({{{200, 1000, Dtype::bf16, Dtype::f32}, true}, {{2048, 4096, Dtype::f16, Dtype::f16, LinearEnd::add}, false},
                                 {{2064, 2048, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, true},
                                 {{1024, 4096, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, false},
                                 {{72, 2056, Dtype::bf16, Dtype::f32, LinearEnd::store}, true},
                                 {{1000, 72, Dtype::f16, Dtype::f16}, false},
                                 {{8, 1544, Dtype::bf16, Dtype::bf16}, true},
                                 {{17416, 200, Dtype::bf16, Dtype::bf16, LinearEnd::add}, true},  // several tiles a block
                                 {{34816, 136, Dtype::f16, Dtype::f16, LinearEnd::gate}, false},
                                 {{512, 14336, Dtype::bf16, Dtype::bf16}, false}})) {
    GemmRig rig(product, FewGemm::most_tokens, random);
    for (int way = 0; way < FewGemm::ways; ++way) {
      for (const std::int64_t tokens : {1, 2, 7, 8, 9, 16, 17, 24, 31, 32, 33, 48, 63, 64}) {
        if (!few.can_run(way, product.shape, tokens)) continue;
        INFO(gemm_key(product.shape, product.has_bias, tokens) << " way " << way);
        rig.reset_y(tokens);
        REQUIRE(few.run(way, product.shape, rig.args(tokens), Run::on(rig.stream)) == Status::ok);
        rig.stream.wait();
        const auto y = rig.y_device.download();
        check_extent(y, product, tokens);
        CHECK(rig.error(y, tokens, 50, random) < tolerance(product.shape));
        ++ran;
      }
    }
  }
  CHECK(ran > 30 / test_every());
}

TEST_CASE("Products of one way that follow each other give the bits of one alone") {
  NEEDS_DEVICE();
  std::mt19937_64 random(fresh_seed());
  const FewGemm few;
  for (const Product& product : some_of<Product>({{{6144, 2048, Dtype::bf16, Dtype::bf16}, true}, {{4096, 4096, Dtype::f16, Dtype::f16, LinearEnd::gate}, false}})) {
    GemmRig rig(product, FewGemm::most_tokens, random);
    for (int way = 0; way < FewGemm::ways; ++way) {
      for (const std::int64_t tokens : some_of<std::int64_t>({9, 24, 64})) {
        if (!few.can_run(way, product.shape, tokens)) continue;
        INFO(gemm_key(product.shape, product.has_bias, tokens) << " way " << way);
        const auto run = [&](int times) {
          for (int n = 0; n < times; ++n) REQUIRE(few.run(way, product.shape, rig.args(tokens), Run::on(rig.stream)) == Status::ok);
        };
        const auto y_after = [&](auto&& launch) {
          rig.reset_y(tokens);
          launch();
          rig.stream.wait();
          return rig.y_device.download();
        };
        const auto once = y_after([&] { run(1); });
        CHECK(y_after([&] { run(5); }) == once);
        const cudaGraphExec_t graph = rig.stream.capture([&] { run(3); });
        for (int n = 0; n < 2; ++n) CHECK(y_after([&] { check(cudaGraphLaunch(graph, rig.stream)); }) == once);
        check(cudaGraphExecDestroy(graph));
      }
    }
  }
}

TEST_CASE("A graph of products gives the bits of eager ones, at every replay") {
  NEEDS_DEVICE();
  const CacheFolder folder;
  std::mt19937_64 random(fresh_seed());
  const auto products = some_of<Product>({{{1536, 576, Dtype::bf16, Dtype::bf16}, true}, {{1536, 576, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, false},
                                          {{576, 1536, Dtype::bf16, Dtype::bf16, LinearEnd::add}, false}});
  const auto counts = counts_of({1, 3, 8, 16, 33, 64, 200});
  choose_own(products, counts.back(), random);
  Gemm gemm;
  for (const Product& product : products) {
    GemmRig rig(product, counts.back(), random);
    rig.prepare(gemm, counts.back());
    for (const std::int64_t tokens : counts) {
      const auto thrice = [&] {
        for (int n = 0; n < 3; ++n) REQUIRE(gemm.run(product.shape, rig.args(tokens), rig.workspace.data(), Run::on(rig.stream)) == Status::ok);
      };
      rig.reset_y(tokens);
      thrice();
      rig.stream.wait();
      const auto eager = rig.y_device.download();
      const cudaGraphExec_t graph = rig.stream.capture(thrice);
      for (int n = 0; n < 3; ++n) {
        rig.reset_y(tokens);
        check(cudaGraphLaunch(graph, rig.stream));
        rig.stream.wait();
        CHECK(rig.y_device.download() == eager);
      }
      check(cudaGraphExecDestroy(graph));
    }
  }
}

TEST_CASE("A second opening takes its choices from the file, whatever the file says") {
  NEEDS_DEVICE();
  const CacheFolder folder;
  std::mt19937_64 random(fresh_seed());
  const std::int64_t tokens = few(64);
  choose_own({{{576, 1536, Dtype::bf16, Dtype::bf16}, false}}, tokens, random);
  GemmRig rig({{576, 1536, Dtype::bf16, Dtype::bf16}, false}, tokens, random);
  const auto first = [&] {
    Gemm gemm;
    rig.prepare(gemm, tokens);
    return rig.run(gemm, tokens);
  }();
  REQUIRE(folder.files().size() == 1);
  const fs::path file = folder.files()[0];
  const std::string text = read_text(file);
  CHECK(text.find(gemm_key(rig.product.shape, false, tokens) + " = ") != text.npos);
  const auto written = fs::last_write_time(file);
  {
    Gemm gemm;
    rig.prepare(gemm, tokens);
    CHECK(rig.run(gemm, tokens) == first);
    CHECK(fs::last_write_time(file) == written);  // nothing was measured
  }
  if (own_alone()) return;
  std::string hostile;
  for (const std::int64_t bucket : gemm_buckets(tokens)) hostile += gemm_key(rig.product.shape, false, bucket) + (bucket % 8 ? " = library 63\n" : " = own 63\n");
  std::ofstream(file) << hostile;
  Gemm gemm;
  rig.prepare(gemm, tokens);
  CHECK(rig.error(rig.run(gemm, tokens), tokens, 50, random) < tolerance(rig.product.shape));
}

TEST_CASE("A Gemm says what it cannot run") {
  NEEDS_DEVICE();
  const CacheFolder folder;
  std::mt19937_64 random(fresh_seed());
  const Product product{{64, 64, Dtype::bf16, Dtype::bf16}, false};
  choose_own({product}, 16, random);
  GemmRig rig(product, 16, random);
  Gemm gemm;
  CHECK(gemm.run(rig.product.shape, rig.args(1), rig.workspace.data(), Run::on(rig.stream)) == Status::invalid_argument);
  CHECK_THROWS_AS(gemm.prepare({64, 12, Dtype::bf16, Dtype::bf16}, rig.args(1), rig.workspace.data(), Run::on(rig.stream)), Error);
  CHECK_THROWS_AS(gemm.prepare({64, 64, Dtype::bf16, Dtype::f16}, rig.args(1), rig.workspace.data(), Run::on(rig.stream)), Error);
  CHECK_THROWS_AS(gemm.prepare({64, 64, Dtype::bf16, Dtype::f32, LinearEnd::add}, rig.args(1), rig.workspace.data(), Run::on(rig.stream)), Error);
  CHECK_THROWS_AS(gemm.prepare({72, 64, Dtype::bf16, Dtype::bf16, LinearEnd::gate}, rig.args(1), rig.workspace.data(), Run::on(rig.stream)), Error);
  rig.prepare(gemm, 16);
  CHECK(gemm.run(rig.product.shape, rig.args(17), rig.workspace.data(), Run::on(rig.stream)) == Status::invalid_argument);
  CHECK(gemm.run(rig.product.shape, rig.args(0), rig.workspace.data(), Run::on(rig.stream)) == Status::ok);
}
