// SPDX-License-Identifier: Apache-2.0
//
// lmkit bench kernel: every op of the engine by itself, against the read bandwidth and the best matrix product of the same
// run, and against float64.
//
// Weights, activations, workspaces and pages lie where an engine with a few of the model's layers would have them, so what is
// measured is what a step launches, with any KV codec on any device. Layers take turns; there are enough of them that weights
// do not stay in a cache, and a row says so where what it reads does.
#include "bench.hpp"
#include "bench_rows.hpp"
#include "machine.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/builtin/cuda.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <set>

namespace lmkit::cli {
namespace {

constexpr std::int64_t gpu_cache = std::int64_t{128} << 20;  // no GPU of today has more
constexpr int few_layers = 4;

// What was asked for, or what says most about the device.
struct Plan {
  std::vector<std::int64_t> products;  // tokens of matrix products and small ops
  std::vector<std::int64_t> batches;
  std::vector<AttentionCase> attention;

  std::int64_t most_tokens() const {
    std::int64_t most = std::max(products.back(), batches.back());
    for (const AttentionCase& what : attention)
      if (what.prefill) most = std::max(most, what.depth);
    return most;
  }
  std::int32_t longest() const {
    std::int32_t longest = 1;
    for (const AttentionCase& what : attention) longest = std::max(longest, *std::max_element(what.lengths.begin(), what.lengths.end()));
    return longest;
  }
  std::vector<int> pools() const {
    std::vector<int> out;
    for (const AttentionCase& what : attention) out.push_back(what.blocks());
    return out;
  }
  // The small ops': one token, a batch, and all.
  std::vector<std::int64_t> row_counts() const {
    const std::set<std::int64_t> counts{1, batches.back(), products.back()};
    return {counts.begin(), counts.end()};
  }
};

// Lengths of 1 to 2 * depth with batch * depth tokens in all: pairs of one that is as much too long as the other is too short.
std::vector<std::int32_t> ragged_lengths(std::int64_t batch, std::int64_t depth, std::mt19937_64& random) {
  std::uniform_int_distribution<std::int64_t> off(0, depth - 1);
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(batch), static_cast<std::int32_t>(depth));
  for (std::size_t i = 0; i + 1 < lengths.size(); i += 2) {
    const auto by = static_cast<std::int32_t>(off(random));
    lengths[i] += by;
    lengths[i + 1] -= by;
  }
  std::shuffle(lengths.begin(), lengths.end(), random);
  return lengths;
}

Plan plan_of(const Arguments& arguments, const ModelConfig& config, bool on_gpu, std::mt19937_64& random) {
  const auto asked = [&](const char* option, std::vector<std::int64_t> otherwise) {
    std::vector<std::int64_t> values = arguments.given(option) ? arguments.wholes(option) : std::move(otherwise);
    std::sort(values.begin(), values.end());
    return values;
  };
  const auto within_context = [&](std::vector<std::int64_t> values) {
    for (std::int64_t& value : values) value = std::min<std::int64_t>(value, config.max_context);
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
  };
  Plan plan;
  const std::int64_t most = arguments.whole("max-batch-tokens").value_or(on_gpu ? 4096 : 256);
  for (const std::int64_t tokens : {1, 4, 16, 64, 256, 4096})
    if (tokens <= most) plan.products.push_back(tokens);
  plan.batches = asked("batches", on_gpu ? std::vector<std::int64_t>{1, 128} : std::vector<std::int64_t>{1, 16});

  const auto even = [&](std::int64_t batch, std::int64_t depth) {
    plan.attention.push_back({.lengths = std::vector<std::int32_t>(static_cast<std::size_t>(batch), static_cast<std::int32_t>(depth)), .depth = depth});
  };
  for (const std::int64_t batch : plan.batches)
    for (const std::int64_t asked_depth : asked("depths", within_context({on_gpu ? 4096 : 1024}))) {
      const std::int64_t depth = std::max<std::int64_t>(asked_depth, 1);
      even(batch, depth);
      if (batch > 1 && depth > 1 && 2 * depth <= config.max_context)
        plan.attention.push_back({.lengths = ragged_lengths(batch, depth, random), .ragged = true, .depth = depth});
    }
  if (on_gpu && !arguments.given("batches") && !arguments.given("depths") && config.max_context > 4096) even(1, std::min(131072, config.max_context));
  for (const std::int64_t tokens : asked("prefill", within_context(on_gpu ? std::vector<std::int64_t>{1024, 4096, 16384} : std::vector<std::int64_t>{512})))
    plan.attention.push_back({.lengths = {static_cast<std::int32_t>(tokens)}, .prefill = true, .depth = tokens});
  if (plan.longest() > config.max_context)
    throw Error(ErrorKind::usage, fmt::format("a sequence of {} tokens", plan.longest()), fmt::format("at most the model's context of {}", config.max_context),
                "smaller --depths or --prefill");
  return plan;
}

struct Limits {
  double bandwidth = 0, flops = 0;  // of the machine, per second
  double cache = 0;                 // bytes

  bool by_flops(const BenchRow& row) const { return row.flops / flops > row.bytes / bandwidth; }
  double rate(const BenchRow& row) const { return (by_flops(row) ? row.flops : row.bytes) / row.seconds; }
  double fraction(const BenchRow& row) const { return rate(row) / (by_flops(row) ? flops : bandwidth); }
  bool in_cache(const BenchRow& row) const { return row.touched < cache; }
};

std::string shape_of(const BenchRow& row) {
  if (row.sequences == 0 || row.what == "attend prefill" || (row.sequences == 1 && row.tokens > 1)) return fmt::format("{} token{}", row.tokens, row.tokens == 1 ? "" : "s");
  return fmt::format("{} x {}{}", row.sequences, row.ragged ? "1.." : "", row.ragged ? 2 * row.depth : row.depth);
}

std::string table_of(const std::vector<BenchRow>& rows, const Limits& limits) {
  std::string out = fmt::format("{:<7} {:<21} {:<14} {:>10} {:>14}  {:>8}   {}\n", "KV", "what", "shape", "us", "rate", "of limit", "error");
  for (const BenchRow& row : rows) {
    const double rate = limits.rate(row);
    const std::string speed = limits.by_flops(row) ? fmt::format("{:.3g} TFLOP/s", rate / 1e12) : fmt::format("{:.1f} GB/s", rate / 1e9);
    out += fmt::format("{:<7} {:<21} {:<14} {:>10.1f} {:>14}  {:>6.0f} %{} {}\n", row.kv, row.what, shape_of(row), row.seconds * 1e6, speed,
                       limits.fraction(row) * 100, limits.in_cache(row) ? "*" : " ", row.error ? fmt::format("{:.1e}", *row.error) : "-");
  }
  return out + "\n* what is read fits in a cache\n"
               "error: |result - float64| / |float64| of a few rows or heads; of attention over the values that were appended, so with what\n"
               "the KV type rounds away (append is checked by it); of sampling the log probability's, and 1 for a wrong token; of copied blocks 1 for a wrong byte\n";
}

boost::json::object json_of(const BenchRow& row, const Limits& limits) {
  boost::json::object shape{{"tokens", row.tokens}};
  if (row.sequences > 0) shape["sequences"] = row.sequences, shape["depth"] = row.depth, shape["ragged"] = row.ragged;
  boost::json::object out{{"what", row.what}, {"shape", shape}, {"seconds", row.seconds}, {"fraction", limits.fraction(row)},
                          {"in_cache", limits.in_cache(row)}, {limits.by_flops(row) ? "flops_per_second" : "bytes_per_second", limits.rate(row)}};
  out["kv"] = row.kv.empty() ? boost::json::value() : boost::json::value(row.kv);
  out["error"] = row.error ? boost::json::value(*row.error) : boost::json::value();
  return out;
}

std::int64_t largest_cache(const Machine& machine) {
  const auto less = [](const CpuCache& a, const CpuCache& b) { return a.bytes < b.bytes; };
  const auto largest = std::max_element(machine.caches.begin(), machine.caches.end(), less);
  return largest == machine.caches.end() ? std::int64_t{32} << 20 : largest->bytes;  // or the system does not tell
}

// Enough layers that their weights do not fit in a cache, and a few at least.
int layers_for(const ModelFile& model, bool on_gpu, std::int64_t cache) {
  const std::int64_t layer = std::max<std::int64_t>(layer_weight_bytes(model, 0, on_gpu), 1);
  const int all = model.config().layers;
  return static_cast<int>(std::clamp<std::int64_t>(2 * cache / layer + 1, std::min(few_layers, all), all));
}

struct Outcome {
  std::vector<BenchRow> rows;
  std::string device;
};

Outcome measure_all(const Arguments& arguments, const std::shared_ptr<const ModelFile>& whole, const ModelFile& model, const Plan& plan,
                    const StepLimits& limits, std::uint64_t seed) {
  Outcome out;
  bool first = true;
  for (const std::string& kv : kv_types(arguments)) {
    Composed composed = compose(arguments, kv);
    if (composed.parts.group->ranks().size > 1)
      throw Error(ErrorKind::usage, fmt::format("{} ranks", composed.parts.group->ranks().size), "one, whose kernels are measured", "the same without --tp");
    choose_device(composed, arguments, *whole);
    out.device = composed.device;
    std::unique_ptr<BenchRig> rig;
    {
      const Waiting waiting("loading the layers");
      rig = std::make_unique<BenchRig>(model, composed.parts, limits, arguments.bytes("device-memory-limit").value_or(0), plan.pools(), seed);
    }
    const std::string name = kv.empty() ? composed.kv : kv;
    const BenchJob job{*rig, *arguments.whole("repeats"), name, [&](BenchRow row) {
                         progress(fmt::format("{} {}, {}", row.kv, row.what, shape_of(row)));
                         out.rows.push_back(std::move(row));
                       }};
    if (std::exchange(first, false)) {
      bench_gemm(job, plan.products);
      bench_small_ops(job, plan.row_counts());
      bench_sampling(job, plan.batches);
    }
    for (const AttentionCase& what : plan.attention) {
      if (what.blocks() <= rig->blocks()) bench_attention(job, what);
      else say(fmt::format("{}: {} left out, its {} blocks are more than fit", name, what.name(), what.blocks()));
    }
    bench_copy_blocks(job);
    end_progress();
  }
  return out;
}

}  // namespace

int bench_kernel(const Arguments& arguments) try {
  catch_interrupts();
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  const bool on_gpu = compose(arguments, kv_types(arguments).front()).on_gpu;
  const auto whole = open_named_model(arguments);
  const std::int64_t cache = on_gpu ? gpu_cache : largest_cache(this_machine());
  const FirstLayers model(whole, layers_for(*whole, on_gpu, cache));
  const Plan plan = plan_of(arguments, model.config(), on_gpu, random);

  EngineLimits engine = limits_of(arguments, 1);
  engine.max_sequences = static_cast<int>(plan.batches.back());
  engine.max_batch_tokens = static_cast<int>(plan.most_tokens());
  engine.session_len = plan.longest();
  const StepLimits limits = resolve(engine, model.config(), 1, on_gpu ? LMKIT_CUDA : LMKIT_CPU);
  const auto bandwidth_now = [&] { return on_gpu ? cuda_library().read_bandwidth(0, 16 * cache) : read_bandwidth(limits.threads, 4 * cache); };
  progress("measuring read bandwidth");
  const double before = bandwidth_now();
  const Outcome measured = measure_all(arguments, whole, model, plan, limits, seed);

  const double bandwidth = std::max(before, bandwidth_now());
  if (bandwidth == 0) throw Error(ErrorKind::memory, fmt::format("no {} to measure the read bandwidth with", bytes_for_people(16 * cache)));
  Limits machine{.bandwidth = bandwidth, .cache = static_cast<double>(cache)};
  for (const BenchRow& row : measured.rows)
    if (row.what.starts_with("gemm")) machine.flops = std::max(machine.flops, row.flops / row.seconds);
  const ModelConfig& config = model.config();
  if (arguments.flag("json")) {
    boost::json::array rows;
    for (const BenchRow& row : measured.rows) rows.push_back(json_of(row, machine));
    print(boost::json::serialize(boost::json::object{
              {"schema", "lmkit.bench_kernel/1"}, {"model", config.name}, {"layers", config.layers}, {"device", measured.device},
              {"cpu", this_machine().cpu}, {"threads", limits.threads}, {"isa", kernels::name_of(kernels::cpu_isa())}, {"read_bandwidth", bandwidth},
              {"gemm_flops_per_second", machine.flops}, {"cache_bytes", cache}, {"repeats", *arguments.whole("repeats")}, {"seed", seed}, {"results", rows}}) + "\n");
    return 0;
  }
  const std::string where = on_gpu ? measured.device : fmt::format("{}, {} threads, {} kernels", this_machine().cpu, limits.threads, kernels::name_of(kernels::cpu_isa()));
  print(fmt::format("{}\n{}: {} of {} layers in turn, median of {} measurements\nlimits: reads {:.1f} GB/s, best matrix product {:.3g} TFLOP/s\n\n{}", where, config.name,
                    config.layers, whole->config().layers, *arguments.whole("repeats"), bandwidth / 1e9, machine.flops / 1e12, table_of(measured.rows, machine)));
  return 0;
} catch (const Interrupted&) {
  end_progress();
  return interrupted_exit_code;
}

}  // namespace lmkit::cli
