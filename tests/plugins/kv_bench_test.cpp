// SPDX-License-Identifier: Apache-2.0
//
// Hidden: what the KV cache of a whole SmolLM2-135M token or prompt costs (30 layers, 9 query and 3 key/value heads of 64).
//     test_plugins "[bench]"          LMKIT_BENCH_THREADS, default 2
#include "../kernels/kv_reference.hpp"

#include <kv_int4.hpp>
#include <kv_int8.hpp>

#include <lmkit/builtin/kv_f16.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>

using namespace kv_test;

namespace {

constexpr int layers = 30;

int threads() {
  const char* wish = std::getenv("LMKIT_BENCH_THREADS");
  return wish ? std::max(1, std::atoi(wish)) : 2;
}

// One sequence's pages in every layer, so that a token reads as much memory as a model's would.
template <class Backend>
class Bench {
 public:
  Bench(const char* name, Backend backend, int context) : name_(name), backend_(std::move(backend)), pool_(threads()), context_(context) {
    blocks_ = (context + 63) / 64;
    part_ = backend_.block_bytes();
    memory_.resize(static_cast<std::size_t>(layers * blocks_ * part_) + 64);
    for (int b = 0; b < blocks_; ++b) table_.push_back(b);
    workspace_.resize(static_cast<std::size_t>(backend_.workspace_bytes({.struct_size = sizeof(KvLimits), .max_tokens = context, .max_sequences = 1,
                                                                         .max_context = context, .workers = threads()})) + 64);
    rope_ = rope_table(context, 64);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int i = 0; i < context * 576; ++i) q_.push_back(normal(random));
    for (int i = 0; i < context * 192; ++i) k_.push_back(normal(random));
    out_.resize(q_.size());
    for (int layer = 0; layer < layers; ++layer) step(layer, 0, context, true, false);
  }

  // Milliseconds of append and of attend for `tokens` after `depth`: the sum over layers of each layer's best time, so that
  // another program's turn on the CPU does not count.
  void report(int depth, int tokens) {
    std::vector<double> append(layers, 1e9), attend(layers, 1e9);
    const auto start = Clock::now();
    for (int i = 0; i < 200 && (i < 3 || since(start) < 1); ++i)
      for (int layer = 0; layer < layers; ++layer) {
        const auto begin = Clock::now();
        step(layer, depth, tokens, true, false);
        append[layer] = std::min(append[layer], since(begin));
        const auto middle = Clock::now();
        step(layer, depth, tokens, false, true);
        attend[layer] = std::min(attend[layer], since(middle));
      }
    const double appending = std::accumulate(append.begin(), append.end(), 0.), attending = std::accumulate(attend.begin(), attend.end(), 0.);
    const double bytes = layers * static_cast<double>(part_) / 64 * (depth + tokens);
    const double macs = layers * 9. * 64 * 2 * tokens * (depth + (tokens + 1) / 2.);
    std::printf("%-9s depth %5d + %4d tokens: append %8.3f ms, attend %8.3f ms, %6.1f GB/s, %6.1f GFMA/s\n", name_, depth, tokens,
                1e3 * appending, 1e3 * attending, bytes / attending / 1e9, macs / attending / 1e9);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

  void step(int layer, int depth, int tokens, bool append, bool attend) {
    const std::int32_t starts[] = {0, tokens}, lengths[] = {depth + tokens};
    const std::vector<std::int32_t> owner(static_cast<std::size_t>(tokens));
    const auto aligned = [](std::vector<std::byte>& v) { return v.data() + (64 - reinterpret_cast<std::uintptr_t>(v.data()) % 64) % 64; };
    const KvPages pages{.struct_size = sizeof(KvPages), .sequences = 1, .base = aligned(memory_), .block_stride = layers * part_,
                        .layer_offset = layer * part_, .block_tables = table_.data(), .block_table_stride = blocks_, .query_starts = starts,
                        .kv_lengths = lengths, .token_sequence = owner.data()};
    if (append)
      (void)backend_.append({.struct_size = sizeof(KvAppend), .tokens = tokens, .q = q_.data(), .k = k_.data(), .v = k_.data() + 5, .q_stride = 576,
                       .kv_stride = tokens > 1 ? 191 : 192, .rope_pairs = LMKIT_ROPE_ADJACENT, .rotary_dim = 64, .rope_table = rope_.data(),
                       .pages = pages, .workspace = aligned(workspace_)}, pool_.stream());
    if (attend)
      (void)backend_.attend({.struct_size = sizeof(KvAttend), .tokens = tokens, .q = q_.data(), .out = out_.data(), .q_stride = 576, .out_stride = 576,
                       .scale = 0.125f, .soft_cap = 0, .window = 0, .max_query_tokens = tokens, .max_kv_length = depth + tokens, .pages = pages,
                       .workspace = aligned(workspace_)}, pool_.stream());
  }

  const char* name_;
  Backend backend_;
  TaskPool pool_;
  int context_, blocks_ = 0;
  std::int64_t part_ = 0;
  std::vector<std::byte> memory_, workspace_;
  std::vector<std::int32_t> table_;
  std::vector<float> rope_, q_, k_, out_;
};

template <class Backend>
void bench(const char* name, Backend backend) {
  Bench b(name, std::move(backend), 4160);
  for (const int depth : {0, 1023, 4095}) b.report(depth, 1);
  for (const int tokens : {512, 2048}) b.report(0, tokens);
}

}  // namespace

TEST_CASE("KV cache of a whole token or prompt", "[.bench]") {
  const KvShape shape = shape_of(9, 3, 64);
  const char* only = std::getenv("LMKIT_BENCH_KV");
  const auto wanted = [&](const char* name) { return !only || std::strcmp(only, name) == 0; };
  if (wanted("kv-f16")) bench("kv-f16", KvF16(shape));
  if (wanted("kv-int8")) bench("kv-int8", KvInt8(shape));
  if (wanted("kv-int4")) bench("kv-int4", KvInt4(shape));
}
