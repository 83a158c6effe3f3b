// SPDX-License-Identifier: Apache-2.0
//
// lmkit_gemm_bench: the products of matrices of Llama-3.1-8B in bf16, against the read bandwidth and the rate of a large
// product, both measured in the same run.
//
//     lmkit_gemm_bench [--json FILE] [--ways] [--tokens N]…     --ways: also each way and candidate, and what was chosen
//
// Times are medians over replays of a graph of launches that take turns on four copies of the weights, which is more than L2
// holds; so one launch may overlap the next, as in a step. "gemm" is what Gemm has chosen, "own" the fastest way of our
// kernels, "cublasLt" the fastest of the heuristic's candidates; "layer" the four products of a layer in turn.
#include "../gemm_few.hpp"
#include "../gemm_library.hpp"
#include "timing.cuh"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <unistd.h>

namespace lmkit::kernels::cuda {
namespace {

constexpr int copies = 4;

struct Named {
  const char* name;
  GemmShape shape;
};
const Named layer[] = {{"qkv", {6144, 4096, Dtype::bf16, Dtype::bf16}},
                       {"o", {4096, 4096, Dtype::bf16, Dtype::bf16}},
                       {"gate_up", {28672, 4096, Dtype::bf16, Dtype::bf16}},
                       {"down", {4096, 14336, Dtype::bf16, Dtype::bf16}}};
const Named lm_head{"lm_head", {128256, 4096, Dtype::bf16, Dtype::f32}};

std::int64_t weight_bytes(const GemmShape& s) { return s.rows * s.cols * size_of(s.dtype); }

std::size_t layer_bytes() {
  std::size_t bytes = 0;
  for (const Named& m : layer) bytes += weight_bytes(m.shape);
  return bytes;
}

struct Row {
  std::string name;
  std::int64_t tokens;
  const char* by;
  double us, rate, fraction;
  const char* unit;
};

// The fastest way of running one shape that a source has, as launches on a copy of the weights.
struct Best {
  std::function<void(int copy)> launch;
  double us;
};
const Best nothing{nullptr, std::numeric_limits<double>::infinity()};

struct Bench {
  DeviceStream stream;
  Timer timer{stream};
  Stream on{reinterpret_cast<lmkit_stream*>(static_cast<cudaStream_t>(stream)), nullptr};
  double read_gbs = measure_read(timer), peak = 0;
  Gemm gemm;
  CublasLt lt;
  FewGemm few;
  DeviceArray<std::byte> workspace{Gemm::workspace_bytes};
  DeviceArray<std::uint16_t> x{std::size_t{8192} * 14336};
  DeviceArray<std::byte> y{std::size_t{4096} * 28672 * 2};
  DeviceArray<std::uint16_t> weights;  // (copies, a layer's matrices), and once those of lm_head in the same place
  std::vector<std::unique_ptr<LibraryGemm>> libraries;
  std::vector<Row> rows;
  bool shows_ways = false;

  Bench() : weights(copies * layer_bytes() / 2) {
    random_kernel<<<1024, 256, 0, stream>>>(weights.data(), weights.size(), 1, 0.02f, true);
    fill_x();
    stream.wait();
  }

  const std::uint16_t* weights_of(const Named& matrix, int copy) const {
    const std::uint16_t* at = weights.data();
    if (&matrix == &lm_head) return at;
    for (const Named& m : layer) {
      if (&m == &matrix) return at + copy * weight_bytes(m.shape) / 2;
      at += copies * weight_bytes(m.shape) / 2;
    }
    return at;
  }

  GemmArgs args(const Named& m, std::int64_t tokens, int copy) const { return {weights_of(m, copy), nullptr, x.data(), y.data(), tokens}; }

  void prepare(const char* what) {
    const auto begin = std::chrono::steady_clock::now();
    Gemm fresh;
    for (const Named& m : layer) fresh.prepare(m.shape, args(m, 4096, 0), workspace.data(), on);
    fresh.prepare(lm_head.shape, args(lm_head, 256, 0), workspace.data(), on);
    std::printf("prepare %s: %.0f ms\n", what, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }

  // What prepare has used as scratch.
  void fill_x() {
    random_kernel<<<1024, 256, 0, stream>>>(x.data(), x.size(), 2, 1.f, true);
    check(cudaGetLastError());
  }

  void must(Status status) {
    if (status != Status::ok) throw std::runtime_error("a product of matrices failed");
  }

  int launches(std::int64_t tokens) const { return tokens > 1024 ? 4 : 8; }
  double time(std::int64_t tokens, const std::function<void(int)>& launch) {
    return timer.median(launches(tokens), [&](int n) { launch(n % copies); }, tokens > 1024 ? 5 : 11);
  }

  Best chosen(const Named& m, std::int64_t tokens) {
    return {[=, this, &m](int copy) { must(gemm.run(m.shape, args(m, tokens, copy), workspace.data(), on)); }, 0};
  }

  Best own(const Named& m, std::int64_t tokens) {
    Best best = nothing;
    for (int way = 0; way < FewGemm::ways; ++way) {
      if (!few.can_run(way, m.shape, tokens)) continue;
      const auto launch = [=, this, &m](int copy) { must(few.run(way, m.shape, args(m, tokens, copy), on)); };
      const double us = time(tokens, launch);
      if (shows_ways) std::printf("    %-8s %5d  way %d %8.2f us\n", m.name, int(tokens), way, us);
      if (us < best.us) best = {launch, us};
    }
    return best;
  }

  Best library(const Named& m, std::int64_t tokens) {
    Best best = nothing;
    LibraryGemm& product = *libraries.emplace_back(std::make_unique<LibraryGemm>(lt, m.shape, false));
    int candidate = 0;
    for (const auto& algorithm : product.candidates(tokens)) {
      const auto launch = [=, this, &m, &product](int copy) { must(product.run(algorithm, args(m, tokens, copy), workspace.data(), on)); };
      const double us = time(tokens, launch);
      if (shows_ways) std::printf("    %-8s %5d  candidate %2d %8.2f us\n", m.name, int(tokens), candidate, us);
      ++candidate;
      if (us < best.us) best = {launch, us};
    }
    return best;
  }

  void add(const std::string& name, std::int64_t tokens, const char* by, double us, double bytes, double operations) {
    if (!std::isfinite(us)) return;
    const double gbs = bytes / us * 1e-3, tflops = operations / us * 1e-6;
    const bool reads = gbs / read_gbs > tflops / peak;
    const Row row{name, tokens, by, us, reads ? gbs : tflops, reads ? gbs / read_gbs : tflops / peak, reads ? "GB/s" : "TFLOP/s"};
    rows.push_back(row);
    std::printf("%-8s %5d  %-8s %10.2f us %9.1f %-7s %6.3f\n", row.name.c_str(), int(tokens), by, us, row.rate, row.unit, row.fraction);
    std::fflush(stdout);
  }

  void measure(std::int64_t tokens) {
    std::vector<std::vector<Best>> chain(3);
    const char* names[] = {"gemm", "own", "cublasLt"};
    double operations = 0;
    const auto each = [&](const Named& m, auto&& use) {
      const Best best[] = {chosen(m, tokens), own(m, tokens), library(m, tokens)};
      double us[3];
      for (int s = 0; s < 3; ++s) us[s] = best[s].launch ? time(tokens, best[s].launch) : best[s].us;  // once more, side by side
      for (int s = 0; s < 3; ++s) {
        add(m.name, tokens, names[s], us[s], weight_bytes(m.shape), 2.0 * m.shape.rows * m.shape.cols * tokens);
        use(s, best[s]);
      }
    };
    for (const Named& m : layer) {
      operations += 2.0 * m.shape.rows * m.shape.cols * tokens;
      each(m, [&](int s, const Best& best) { chain[s].push_back(best); });
    }
    for (int s = 0; s < 3; ++s) {
      if (std::ranges::any_of(chain[s], [](const Best& best) { return !best.launch; })) continue;
      const double us = timer.median(copies, [&](int copy) { for (const Best& best : chain[s]) best.launch(copy); }, 11);
      add("layer", tokens, names[s], us, layer_bytes(), operations);
    }
    if (tokens <= 256) each(lm_head, [](int, const Best&) {});
  }

  void measure_peak() {
    const Named square{"square", {8192, 8192, Dtype::bf16, Dtype::bf16}};
    LibraryGemm product(lt, square.shape, false);
    for (const auto& algorithm : product.candidates(8192)) {
      const GemmArgs a{weights.data(), nullptr, x.data(), y.data(), 8192};
      peak = std::max(peak, 2.0 * 8192 * 8192 * 8192 / timer.median(2, [&](int) { must(product.run(algorithm, a, workspace.data(), on)); }, 5) * 1e-6);
    }
  }

  void write_json(const char* path, const char* device) const {
    std::FILE* file = std::fopen(path, "w");
    if (!file) throw std::runtime_error(std::string("cannot write ") + path);
    std::fprintf(file, "{\"schema\": \"lmkit.gemm-bench/1\", \"device\": \"%s\", \"read_gbs\": %.1f, \"peak_tflops\": %.1f, \"rows\": [", device, read_gbs, peak);
    const char* comma = "";
    for (const Row& row : rows) {
      std::fprintf(file, "%s\n  {\"name\": \"%s\", \"tokens\": %d, \"by\": \"%s\", \"us\": %.6g, \"rate\": %.6g, \"unit\": \"%s\", \"fraction\": %.4g}", comma,
                   row.name.c_str(), int(row.tokens), row.by, row.us, row.rate, row.unit, row.fraction);
      comma = ",";
    }
    std::fprintf(file, "\n]}\n");
    std::fclose(file);
  }
};

void run(int argc, char** argv) {
  const char* json = nullptr;
  std::vector<std::int64_t> tokens;
  bool shows_ways = false;
  for (int n = 1; n < argc; ++n) {
    if (std::strcmp(argv[n], "--json") == 0 && n + 1 < argc) json = argv[++n];
    else if (std::strcmp(argv[n], "--tokens") == 0 && n + 1 < argc) tokens.push_back(std::atoll(argv[++n]));
    else if (std::strcmp(argv[n], "--ways") == 0) shows_ways = true;
    else throw std::runtime_error(std::string("unknown option ") + argv[n]);
  }
  if (tokens.empty()) tokens = {1, 4, 16, 64, 128, 256, 4096};
  if (std::ranges::any_of(tokens, [](std::int64_t t) { return t < 1 || t > 4096; })) throw std::runtime_error("--tokens takes 1 to 4096");

  const auto cache = std::filesystem::temp_directory_path() / ("lmkit-gemm-bench-" + std::to_string(getpid()));
  setenv("XDG_CACHE_HOME", cache.c_str(), 1);  // choices are measured in this run
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0));
  Bench bench;
  bench.shows_ways = shows_ways;
  bench.measure_peak();
  std::printf("%s, %d multiprocessors, read %.0f GB/s, 8192^3 %.0f TFLOP/s\n", device.name, device.multiProcessorCount, bench.read_gbs, bench.peak);
  bench.prepare("cold");
  bench.prepare("warm");
  for (const Named& m : layer) bench.gemm.prepare(m.shape, bench.args(m, 4096, 0), bench.workspace.data(), bench.on);
  bench.gemm.prepare(lm_head.shape, bench.args(lm_head, 256, 0), bench.workspace.data(), bench.on);
  bench.fill_x();
  for (const std::int64_t t : tokens) bench.measure(t);
  if (json) bench.write_json(json, device.name);
  if (shows_ways)
    for (const auto& file : std::filesystem::recursive_directory_iterator(cache))
      if (std::ifstream choices(file.path()); file.is_regular_file()) std::cout << choices.rdbuf();
  std::filesystem::remove_all(cache);
}

}  // namespace
}  // namespace lmkit::kernels::cuda

int main(int argc, char** argv) {
  try {
    lmkit::kernels::cuda::run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "lmkit_gemm_bench: %s\n", failure.what());
    return 1;
  }
}
