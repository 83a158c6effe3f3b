// SPDX-License-Identifier: Apache-2.0
//
// lmkit_sample_bench: the time of a batch's sampling, as medians over replays of a graph of eight launches that take turns on
// batches of logits larger together than L2 (where a batch is small: on eight of them). GB/s count each logit once.
//
//     lmkit_sample_bench [name…]     only the rows whose name contains one of the words
//
// "peaked" rows hold normally distributed logits of deviation 4, where top-p 0.9 keeps a few hundred tokens; "flat" ones of
// deviation 1.5, where it keeps too many to sort.
#include "timing.cuh"

#include <lmkit/kernels/cuda/sample.hpp>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>

namespace lmkit::kernels::cuda {
namespace {

struct Kind {
  const char* name;
  SampleRow row;
  float deviation = 4;
  int edits = 0;  // of a row
};

void bench(Timer& timer, const Kind& kind, int count, int vocabulary, const std::vector<float>& normals) {
  constexpr int launches = 8;
  const std::size_t size = std::size_t(count) * vocabulary;
  const int batches = static_cast<int>(std::clamp<std::size_t>((128u << 20) / (4 * size), 2, launches));
  std::vector<DeviceArray<float>> logits;
  std::vector<float> values(size);
  for (int b = 0; b < batches; ++b) {
    for (std::size_t i = 0; i < size; ++i) values[i] = kind.deviation * normals[(i + i / vocabulary * 977 + b * 131) % normals.size()];
    logits.emplace_back(values);
  }
  std::vector<SampleRow> rows(count, kind.row);
  std::vector<LogitEdit> edits(std::size_t(count) * kind.edits);
  for (int n = 0; n < count; ++n) {
    rows[n].seed = n, rows[n].position = 100 + n;
    rows[n].edits_begin = n * kind.edits, rows[n].edits_end = (n + 1) * kind.edits;
    for (int e = 0; e < kind.edits; ++e) edits[n * kind.edits + e] = {.token = e * (vocabulary / kind.edits), .in_answer = e % 2, .seen = 1};
  }
  const DeviceArray<SampleRow> device_rows(rows);
  const DeviceArray<LogitEdit> device_edits(edits);
  const DeviceArray<Sampled> out(count);
  const DeviceArray<std::byte> workspace(sample_workspace_bytes(count, vocabulary));
  const Stream on{reinterpret_cast<lmkit_stream*>(static_cast<cudaStream_t>(timer.stream)), nullptr};
  const double us = timer.median(launches, [&](int n) {
    if (sample(logits[n % batches].data(), count, vocabulary, device_rows.data(), device_edits.data(), out.data(), workspace.data(), on) != Status::ok)
      check(cudaGetLastError());
  });
  std::printf("%-28s rows %3d  vocabulary %6d  %8.1f us  %7.1f GB/s\n", kind.name, count, vocabulary, us, 4e-3 * size / us);
}

void run(int argc, char** argv) {
  const Kind kinds[] = {{"greedy", {}},
                        {"all tokens", {.temperature = 1}},
                        {"top-k 50", {.temperature = 1, .top_k = 50}},
                        {"top-p 0.9, peaked", {.temperature = 1, .top_p = 0.9f}},
                        {"all parts, 1000 edits", {.temperature = 0.8f, .top_k = 50, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.0001f, .presence_penalty = 1e-4f}, 4, 1000},
                        {"top-p 0.9, flat", {.temperature = 1, .top_p = 0.9f}, 1.5f}};
  std::mt19937_64 random(std::random_device{}());
  std::normal_distribution<float> normal;
  std::vector<float> normals(1 << 20);
  for (float& x : normals) x = normal(random);
  const DeviceStream stream;
  Timer timer(stream);
  for (const Kind& kind : kinds) {
    if (argc > 1 && std::none_of(argv + 1, argv + argc, [&](const char* word) { return std::string(kind.name).find(word) != std::string::npos; })) continue;
    for (const int count : {1, 16, 128})
      for (const int vocabulary : {32000, 128256, 151936}) bench(timer, kind, count, vocabulary, normals);
  }
}

}  // namespace
}  // namespace lmkit::kernels::cuda

int main(int argc, char** argv) {
  try {
    lmkit::kernels::cuda::run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "lmkit_sample_bench: %s\n", failure.what());
    return 1;
  }
}
