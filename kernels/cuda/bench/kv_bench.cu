// SPDX-License-Identifier: Apache-2.0
//
// lmkit_kv_bench: decode and prefill attention and append per codec, against the read bandwidth measured in the same run.
//
//     lmkit_kv_bench [--json FILE] [name…]     only the rows whose name contains one of the words
//
// Times are medians over replays of a graph of eight launches that take turns on two pools of pages larger than L2 (one
// where a pool is far larger). Bytes are those of the pages a launch must read. The error is |out - float64| / |float64|
// for a few heads, over the values the pages hold.
#include "kv_rig.hpp"
#include "timing.cuh"

#include <lmkit/kernels/cuda/affine_kv.hpp>
#include <lmkit/kernels/cuda/kv_plain.hpp>
#include <lmkit/kernels/cuda/prim.cuh>

#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

namespace lmkit::kernels::cuda {
namespace {

struct Codec {
  const char* name;
  std::span<const KvKernels* const> kernels;
  TokenReader reader;  // head_dim 128
  bool centred = false;
};

struct Row {
  std::string name, codec;
  double us, amount, rate, fraction, error;
  const char* unit;
};

struct Bench {
  DeviceStream stream;
  Timer timer{stream};
  double read_gbs = 0;
  std::vector<Row> rows;
  std::vector<std::string> only;
  Stream on{reinterpret_cast<lmkit_stream*>(static_cast<cudaStream_t>(stream)), nullptr};

  bool wanted(const std::string& name) const {
    return only.empty() || std::ranges::any_of(only, [&](const std::string& word) { return name.find(word) != std::string::npos; });
  }

  void fill(DeviceArray<std::uint16_t>& array, float spread, std::uint32_t seed) {
    random_kernel<<<1024, 256, 0, stream>>>(array.data(), array.size(), seed, spread, true);
    check(cudaGetLastError());
  }

  // A rig whose sequences hold lengths[s] tokens each, the last one new.
  std::unique_ptr<KvRig> filled(const Codec& codec, const RigShape& shape, const std::vector<int>& lengths, int max_tokens, std::uint32_t seed) {
    auto rig = std::make_unique<KvRig>(shape, codec.kernels, lengths, max_tokens, seed);
    constexpr int chunk = 4096;
    DeviceArray<std::uint16_t> q(std::size_t(chunk) * shape.query_heads * shape.head_dim), kv(2 * std::size_t(chunk) * shape.kv_heads * shape.head_dim);
    KvRig filler_view = KvRig(shape, codec.kernels, std::vector<int>(lengths.size(), 1), chunk, 0);  // its step arrays alone are used
    for (std::size_t s = 0; s < lengths.size(); ++s)
      for (int done = 0; done < lengths[s];) {
        const int now = std::min(chunk, lengths[s] - done);
        std::vector<int> counts(lengths.size(), 0);
        counts[s] = now;
        filler_view.lengths.assign(lengths.size(), 0);
        filler_view.lengths[s] = done;
        filler_view.begin_step(counts);
        if (s < 16) {
          fill(q, 1.f, seed + 7);
          fill(kv, 1.f, static_cast<std::uint32_t>(seed + 1000 * s + done));
        }
        KvPages pages = rig->pages();
        pages.query_starts = filler_view.device_starts.data();
        pages.kv_lengths = filler_view.device_lengths.data();
        pages.token_sequence = filler_view.device_sequences.data();
        append(*rig, q, kv, now, pages);
        stream.wait();
        done += now;
      }
    return rig;
  }

  // angles: null for none
  void append(KvRig& rig, DeviceArray<std::uint16_t>& q, DeviceArray<std::uint16_t>& kv, int tokens, const KvPages& pages, const float* angles = nullptr) {
    const RigShape& s = rig.shape;
    const KvAppend args{sizeof(KvAppend), tokens, q.data(), kv.data(), kv.data() + kv.size() / 2, s.query_heads * s.head_dim,
                        s.kv_heads * s.head_dim, angles ? LMKIT_ROPE_HALVES : LMKIT_ROPE_NONE, s.head_dim, angles, pages, rig.workspace.data()};
    if (rig.kv.append(args, on) != Status::ok) check(cudaGetLastError());
  }

  void attend(KvRig& rig, const DeviceArray<std::uint16_t>& q, const DeviceArray<std::uint16_t>& out, int most) { attend(rig, q, out, most, rig.pages()); }
  void attend(KvRig& rig, const DeviceArray<std::uint16_t>& q, const DeviceArray<std::uint16_t>& out, int most, const KvPages& pages) {
    const RigShape& s = rig.shape;
    const KvAttend args{sizeof(KvAttend), rig.tokens, q.data(), out.data(), s.query_heads * s.head_dim, s.query_heads * s.head_dim,
                        1.f / std::sqrt(static_cast<float>(s.head_dim)), 0.f, 0, most, *std::ranges::max_element(rig.lengths), pages,
                        rig.workspace.data()};
    if (rig.kv.attend(args, on) != Status::ok) check(cudaGetLastError());
  }

  // Of up to three (token, head) pairs of the rig's step.
  double error_of(const KvRig& rig, const Codec& codec, const DeviceArray<std::uint16_t>& q, const DeviceArray<std::uint16_t>& out) {
    if (!codec.reader || rig.shape.head_dim != 128) return NAN;
    const int D = rig.shape.head_dim, H = rig.shape.query_heads, sequences = static_cast<int>(rig.lengths.size());
    RelativeError error;
    const auto q_host = q.download(), out_host = out.download();
    for (int n = 0; n < 3; ++n) {
      const int s = n * (sequences - 1) / 2, head = n * (H - 1) / 2, count = rig.starts[s + 1] - rig.starts[s], i = n * (count - 1) / 2;
      if (count == 0) continue;
      const int kv_head = rig.kv_head(head), length = rig.lengths[s];
      std::vector<float> k(std::size_t(length) * D), v(k.size());
      const std::int64_t head_bytes = rig.head_bytes();
      std::vector<std::byte> page(head_bytes), before;
      for (int t = 0; t < length; ++t) {
        if (t % 64 == 0) {
          if (t > 0) before = page;
          check(cudaMemcpy(page.data(), rig.pool.data() + rig.table[s * rig.table_stride + t / 64] * rig.block_stride + rig.layer_offset + kv_head * head_bytes,
                           head_bytes, cudaMemcpyDeviceToHost));
        }
        rig.read_token(page.data(), t < 64 ? nullptr : before.data(), t % 64, codec.reader, k.data() + std::size_t(t) * D, v.data() + std::size_t(t) * D);
      }
      const std::size_t at = (std::size_t(rig.starts[s] + i) * H + head) * D;
      std::vector<double> x(D), expected(D);
      for (int d = 0; d < D; ++d) x[d] = activation(q_host[at + d], true);
      reference_attention(x.data(), k.data(), v.data(), rig.position(s, i), D, 1 / std::sqrt(double(D)), 0, 0, expected.data());
      for (int d = 0; d < D; ++d) error.add(activation(out_host[at + d], true), expected[d]);
    }
    return error.value();
  }

  void decode(const std::string& name, const Codec& codec, RigShape shape, const std::vector<int>& lengths) {
    shape.centred = codec.centred;
    if (!wanted(name + " " + codec.name)) return;
    const int sequences = static_cast<int>(lengths.size());
    std::int64_t tokens = 0;
    for (int length : lengths) tokens += length;
    std::vector<std::unique_ptr<KvRig>> rigs;
    rigs.push_back(filled(codec, shape, lengths, sequences, 1));
    const double bytes = double(rigs[0]->kv.block_bytes()) / shape.block_tokens * tokens;
    for (int more = 1; more < (bytes > 4e8 ? 1 : 4); ++more) rigs.push_back(filled(codec, shape, lengths, sequences, 1 + more));
    DeviceArray<std::uint16_t> q(std::size_t(sequences) * shape.query_heads * shape.head_dim), out(q.size());
    fill(q, 2.f, 5);
    for (auto& rig : rigs) {
      rig->lengths = lengths;
      for (int& length : rig->lengths) --length;
      rig->begin_step(std::vector<int>(sequences, 1));
    }
    attend(*rigs[0], q, out, 1);
    stream.wait();
    const double error = error_of(*rigs[0], codec, q, out);
    const double us = timer.median(8, [&](int n) { attend(*rigs[n % rigs.size()], q, out, 1); });
    add({"decode " + name, codec.name, us, bytes, bytes / us * 1e-3, bytes / us * 1e-3 / read_gbs, error, "GB/s"});
  }

  void prefill(const Codec& codec, RigShape shape, int length) {
    shape.centred = codec.centred;
    const std::string name = "prefill " + std::to_string(length / 1024) + (shape.warpgroups ? "K" : "K by warps");
    if (!wanted(name + " " + codec.name)) return;
    auto rig = filled(codec, shape, {length}, length, 1);
    rig->lengths = {0};
    rig->begin_step({length});
    DeviceArray<std::uint16_t> q(std::size_t(length) * shape.query_heads * shape.head_dim), out(q.size());
    fill(q, 2.f, 5);
    attend(*rig, q, out, length);
    stream.wait();
    const double error = error_of(*rig, codec, q, out);
    const double us = timer.median(2, [&](int) { attend(*rig, q, out, length); }, 9);
    const double operations = 2.0 * shape.query_heads * shape.head_dim * double(length) * length;  // half of 4 H D L^2
    add({name, codec.name, us, operations, operations / us * 1e-6, NAN, error, "TFLOP/s"});
  }

  void append_row(const Codec& codec, RigShape shape, int sequences, int tokens_each) {
    shape.centred = codec.centred;
    const std::string name = "append " + std::to_string(sequences) + "x" + std::to_string(tokens_each);
    if (!wanted(name + " " + codec.name)) return;
    const int tokens = sequences * tokens_each;
    KvRig rig(shape, codec.kernels, std::vector<int>(sequences, tokens_each), tokens, 1);
    rig.begin_step(std::vector<int>(sequences, tokens_each));
    DeviceArray<std::uint16_t> q(std::size_t(tokens) * shape.query_heads * shape.head_dim), kv(2 * std::size_t(tokens) * shape.kv_heads * shape.head_dim);
    fill(q, 1.f, 5);
    fill(kv, 1.f, 6);
    DeviceArray<float> table(std::size_t(tokens_each) * shape.head_dim);
    table.fill(0);
    const KvPages pages = rig.pages();
    const KvAppend args{sizeof(KvAppend), tokens, q.data(), kv.data(), kv.data() + kv.size() / 2, shape.query_heads * shape.head_dim,
                        shape.kv_heads * shape.head_dim, LMKIT_ROPE_HALVES, shape.head_dim, table.data(), pages, rig.workspace.data()};
    const double us = timer.median(8, [&](int) {
      if (rig.kv.append(args, on) != Status::ok) check(cudaGetLastError());
    });
    const double bytes = 4.0 * q.size() + 2.0 * kv.size() + double(rig.kv.block_bytes()) / 64 * tokens;
    add({name, codec.name, us, bytes, bytes / us * 1e-3, bytes / us * 1e-3 / read_gbs, NAN, "GB/s"});
  }

  // append and attend of one new token a sequence, one layer after another, as in a step of a model.
  void step(const std::string& name, const Codec& codec, RigShape shape, const std::vector<int>& lengths) {
    shape.centred = codec.centred;
    if (!wanted("step " + name + " " + codec.name)) return;
    const int sequences = static_cast<int>(lengths.size()), count = sequences > 1 ? 8 : 32;
    std::vector<std::unique_ptr<KvRig>> layers;
    for (int n = 0; n < count; ++n) layers.push_back(filled(codec, shape, lengths, sequences, 1));
    KvRig& first = *layers[0];
    first.lengths = lengths;
    for (int& length : first.lengths) --length;
    first.begin_step(std::vector<int>(sequences, 1));
    DeviceArray<std::uint16_t> q(std::size_t(sequences) * shape.query_heads * shape.head_dim), kv(2 * std::size_t(sequences) * shape.kv_heads * shape.head_dim),
        out(q.size());
    fill(q, 2.f, 5);
    fill(kv, 1.f, 6);
    std::vector<float> angles(std::size_t(*std::ranges::max_element(lengths)) * shape.head_dim);
    for (std::size_t n = 0; n < angles.size(); ++n) angles[n] = n % 2 ? std::sin(0.1f * n) : std::cos(0.1f * (n + 1));
    const DeviceArray<float> table(angles);
    const double us = timer.median(32, [&](int n) {
      KvPages pages = first.pages();
      pages.base = layers[n % count]->pool.data();
      append(first, q, kv, sequences, pages, table.data());
      attend(first, q, out, 1, pages);
    });
    std::int64_t tokens = 0;
    for (int length : lengths) tokens += length;
    const double bytes = double(layers[0]->kv.block_bytes()) / shape.block_tokens * tokens;
    add({"step " + name, codec.name, us, bytes, bytes / us * 1e-3, bytes / us * 1e-3 / read_gbs, NAN, "GB/s"});
  }

  void add(const Row& row) {
    rows.push_back(row);
    std::printf("%-28s %-14s %10.1f us %9.1f %-8s %6.3f  error %.1e\n", row.name.c_str(), row.codec.c_str(), row.us, row.rate, row.unit, row.fraction,
                row.error);
    std::fflush(stdout);
  }

  void write_json(const char* path, const char* device) const {
    std::FILE* file = std::fopen(path, "w");
    if (!file) throw std::runtime_error(std::string("cannot write ") + path);
    std::fprintf(file, "{\"schema\": \"lmkit.kv-bench/1\", \"device\": \"%s\", \"read_gbs\": %.1f, \"rows\": [", device, read_gbs);
    const char* comma = "";
    const auto number = [&](const char* name, double x) { std::isnan(x) ? std::fprintf(file, ", \"%s\": null", name) : std::fprintf(file, ", \"%s\": %.6g", name, x); };
    for (const Row& row : rows) {
      std::fprintf(file, "%s\n  {\"name\": \"%s\", \"codec\": \"%s\", \"unit\": \"%s\"", comma, row.name.c_str(), row.codec.c_str(), row.unit);
      number("us", row.us), number("rate", row.rate), number("fraction", row.fraction), number("error", row.error);
      std::fprintf(file, "}");
      comma = ",";
    }
    std::fprintf(file, "\n]}\n");
    std::fclose(file);
  }
};

void run(int argc, char** argv) {
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0));
  Bench bench;
  const char* json = nullptr;
  for (int n = 1; n < argc; ++n) {
    if (std::strcmp(argv[n], "--json") == 0 && n + 1 < argc) json = argv[++n];
    else bench.only.push_back(argv[n]);
  }
  bench.read_gbs = measure_read(bench.timer);
  std::printf("%s, %d multiprocessors, read %.0f GB/s\n", device.name, device.multiProcessorCount, bench.read_gbs);

  const Codec codecs[] = {{"bf16", plain_kv_kernels(), read_tile_token<Plain16<BFloat16>, 128>},
                          {"int8", affine_kv_kernels<8, false>(), read_tile_token<AffineCodec<8, 128, false>, 128>},
                          {"int8 scale only", affine_kv_kernels<8, true>(), read_tile_token<AffineCodec<8, 128, true>, 128>},
                          {"int4", affine_kv_kernels<4, false>(), read_tile_token<AffineCodec<4, 128, false>, 128>, true},
                          {"int4 uncentred", affine_kv_kernels<4, false>(), read_tile_token<AffineCodec<4, 128, false>, 128>}};
  const RigShape gqa{.query_heads = 32, .kv_heads = 8, .group_size = 4}, mha{.query_heads = 32, .kv_heads = 32, .group_size = 1};
  std::vector<int> ragged(128);  // 1 .. 8K, half a million tokens like the uniform batch
  for (int s = 0; s < 128; ++s) ragged[s] = 1 + (s * 53 % 128) * 8191 / 127;
  for (const Codec& codec : codecs) {
    bench.decode("128x4K", codec, gqa, std::vector<int>(128, 4096));
    bench.decode("128x1..8K", codec, gqa, ragged);
    bench.decode("1x128K", codec, gqa, {131072});
    bench.decode("1x1K", codec, gqa, {1024});
    bench.decode("16x2K", codec, gqa, std::vector<int>(16, 2048));
    bench.decode("MHA 128x4K", codec, mha, std::vector<int>(128, 4096));
    bench.step("1x1K", codec, gqa, {1024});
    bench.step("16x2K", codec, gqa, std::vector<int>(16, 2048));
    bench.append_row(codec, gqa, 128, 1);
    bench.append_row(codec, gqa, 1, 1);
    bench.append_row(codec, gqa, 1, 4096);
    RigShape by_warps = gqa;
    by_warps.warpgroups = false;  // as on anything but sm_90a
    for (const int length : {1024, 4096, 16384, 32768}) bench.prefill(codec, gqa, length);
    for (const int length : {1024, 4096, 16384}) bench.prefill(codec, by_warps, length);
  }
  if (json) bench.write_json(json, device.name);
}

}  // namespace
}  // namespace lmkit::kernels::cuda

int main(int argc, char** argv) {
  try {
    lmkit::kernels::cuda::run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "lmkit_kv_bench: %s\n", failure.what());
    return 1;
  }
}
