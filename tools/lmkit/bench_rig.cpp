// SPDX-License-Identifier: Apache-2.0
#include "bench_rig.hpp"

#include "bench.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/base/half.hpp>

#include <fmt/format.h>

#include <cmath>
#include <cstring>

namespace lmkit::cli {
namespace {

constexpr std::size_t tile_values = 1'048'573;  // a prime: no two rows of a matrix are the same
constexpr int most_launches = 256;              // in one recording

RankShape whole(const ModelConfig& config) {
  return cut(config, [](Role, std::int64_t units) { return Shard{0, units}; });
}

std::vector<std::byte> stored(std::span<const float> values, Dtype dtype, float spread) {
  std::vector<std::byte> out(values.size() * static_cast<std::size_t>(size_of(dtype)));
  std::byte* to = out.data();
  const auto write = [&to](auto value) {
    std::memcpy(to, &value, sizeof value);
    to += sizeof value;
  };
  for (const float value : values) {
    if (dtype == Dtype::f32) write(value * spread);
    else if (dtype == Dtype::f16) write(to_half(value * spread));
    else write(to_bfloat16(value * spread));
  }
  return out;
}

// The largest pool that fits, with the engine's own arithmetic of what is there.
int pool_of(const RankLedger& ledger, const StepLimits& limits, const AnyAllocator& allocator, std::int64_t memory, std::span<const int> pools) {
  check_room(ledger, memory);
  const int available = blocks_of(ledger, limits, memory, allocator.kv_bytes(report_of(ledger, limits, memory)));
  int blocks = 0;
  for (const int pool : pools)
    if (pool <= available) blocks = std::max(blocks, pool);
  if (blocks > 0) return blocks;
  throw Error(ErrorKind::memory, fmt::format("a KV pool of {} blocks of {}", available, bytes_for_people(ledger.kv_block_bytes)),
              fmt::format("at least {} blocks", *std::min_element(pools.begin(), pools.end())),
              "smaller --depths, --batches or --prefill, or a larger --device-memory-limit");
}

}  // namespace

float value_at(const std::byte* values, std::int64_t index, Dtype dtype) noexcept {
  const auto read = [&]<class T>(T value) {
    std::memcpy(&value, values + index * static_cast<std::int64_t>(sizeof value), sizeof value);
    return value;
  };
  return dtype == Dtype::f32 ? read(0.0f) : dtype == Dtype::f16 ? to_float(read(Half{})) : to_float(read(BFloat16{}));
}

BenchRig::BenchRig(const ModelFile& model, const AnyPipeline::Parts& parts, const StepLimits& limits, std::int64_t device_memory,
                   std::span<const int> pools, std::uint64_t seed)
    : model_(model),
      limits_(limits),
      threads_(limits.threads),
      shape_(whole(model.config())),
      device_(parts.open_device(0, threads_.stream())),
      kv_(parts.make_kv(kv_shape(model.config(), shape_, *device_))),
      vocabulary_shards_{model.config().vocabulary},
      random_(seed) {
  const RankSizes sizes = rank_sizes<OneDevice>(config(), limits, OneDevice::Group{}, kv_, *device_);
  blocks_ = pool_of(measure(model, shape_, limits, sizes, 0, *device_), limits, parts.allocator, device_->room(device_memory), pools);
  arena_ = device_->allocate(measure(model, shape_, limits, sizes, blocks_, *device_).arena());
  Carver carver(arena_->data());
  memory_ = lay_out(model, shape_, limits, sizes, blocks_, carver, *device_);

  rope_table_ = lmkit::rope_table(model, limits.context, threads());
  put(memory_.rope_table.data(), rope_table_.data(), static_cast<std::int64_t>(rope_table_.size() * sizeof(float)));
  if (device_->queue()) device_->queue()->draw_into(memory_.step.drawn.data());

  std::normal_distribution<float> normal;
  normals_.resize(tile_values);
  for (float& value : normals_) value = normal(random_);
}

// --- memory

void BenchRig::wait() {
  kernels::Queue* const queue = device_->queue();
  if (queue && both(queue->mark(0), queue->wait(0)) != Status::ok) throw Error(ErrorKind::device, last_failure());
}

void BenchRig::run(const std::function<Status()>& work) {
  if (work() != Status::ok) throw Error(ErrorKind::device, "a kernel failed: " + last_failure());
  wait();
}

void BenchRig::put(void* to, const void* from, std::int64_t bytes) {
  if (kernels::Queue* const queue = device_->queue()) run([&] { return queue->upload(to, from, bytes); });
  else std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

std::vector<std::byte> BenchRig::get(const void* from, std::int64_t bytes) {
  std::vector<std::byte> out(static_cast<std::size_t>(bytes));
  if (kernels::Queue* const queue = device_->queue()) run([&] { return queue->download(out.data(), from, bytes); });
  else std::memcpy(out.data(), from, out.size());
  return out;
}

void BenchRig::randomise(void* to, std::int64_t count, Dtype dtype, float spread) {
  std::rotate(normals_.begin(), normals_.begin() + static_cast<std::ptrdiff_t>(random_() % tile_values), normals_.end());
  const std::vector<std::byte> tile = stored(normals_, dtype, spread);
  const std::int64_t tile_bytes = std::ssize(tile), bytes = count * size_of(dtype);
  for (std::int64_t done = 0; done < bytes; done += tile_bytes)
    put(static_cast<std::byte*>(to) + done, tile.data(), std::min(tile_bytes, bytes - done));
}

std::vector<float> BenchRig::values(const void* from, std::int64_t count, Dtype dtype) {
  const std::vector<std::byte> bytes = get(from, count * size_of(dtype));
  std::vector<float> out(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) out[static_cast<std::size_t>(i)] = value_at(bytes.data(), i, dtype);
  return out;
}

// --- steps

void BenchRig::begin(StepPlan plan) {
  plan_ = std::move(plan);
  if (!device_->queue()) {
    arrays_ = {plan_.tokens.data(), plan_.token_sequence.data(), plan_.query_starts.data(), plan_.kv_lengths.data(), plan_.block_tables.data(),
               plan_.block_table_stride, plan_.logit_rows.data()};
    return;
  }
  const StepInputs inputs(limits_);
  const auto place = [&](const std::vector<std::int32_t>& array, std::byte* to) {
    if (!array.empty()) put(to, array.data(), static_cast<std::int64_t>(array.size() * sizeof(std::int32_t)));
    return reinterpret_cast<const std::int32_t*>(to);
  };
  std::byte* const base = memory_.step.inputs.data();
  arrays_ = {place(plan_.tokens, base + inputs.tokens), place(plan_.token_sequence, base + inputs.token_sequence),
             place(plan_.query_starts, base + inputs.query_starts), place(plan_.kv_lengths, base + inputs.kv_lengths),
             place(plan_.block_tables, reinterpret_cast<std::byte*>(memory_.step.block_tables.data())), plan_.block_table_stride,
             place(plan_.logit_rows, base + inputs.logit_rows)};
}

BenchRig::BenchStep BenchRig::step(const Activations& activations) {
  return {.config = config(),
          .shape = shape_,
          .weights = memory_.weights,
          .rope_table = memory_.rope_table.data(),
          .vocabulary_shards = vocabulary_shards_,
          .act = activations,
          .pool = memory_.pool,
          .parallel = parallel_,
          .kv = kv_,
          .device = *device_,
          .plan = plan_,
          .arrays = arrays_};
}

// --- time

double BenchRig::seconds(const std::function<Status(int layer)>& call, std::int64_t repeats) {
  kernels::Queue* const queue = device_->queue();
  const int layers = config().layers;
  const double enough = queue ? 5e-3 : 20e-3;  // of a measurement, against the clock's grain and what waiting costs
  std::function<Status()> unit = [&] {
    Status status = Status::ok;
    for (int layer = 0; layer < layers; ++layer) status = both(status, call(layer));
    return status;
  };
  const auto seconds_of = [&](std::int64_t units) {
    if (interrupts() > 0) throw Interrupted{};
    const auto start = Clock::now();
    for (std::int64_t i = 1; i < units; ++i)
      if (unit() != Status::ok) break;
    run(unit);
    return seconds_since(start);
  };
  std::int64_t passes = 1;
  run(unit);  // what is loaded or prepared by the first call
  if (queue) {
    passes = std::clamp(static_cast<int>(enough / seconds_of(1)), 1, std::max(1, most_launches / layers));
    const int recording = queue->record([&] {
      Status status = Status::ok;
      for (std::int64_t i = 0; i < passes; ++i) status = both(status, unit());
      return status;
    });
    unit = [queue, recording] { return queue->replay(recording); };
    run(unit);
  }
  const auto units = std::clamp(static_cast<std::int64_t>(enough / seconds_of(1)) + 1, std::int64_t{1}, std::int64_t{10'000});
  std::vector<double> times;
  for (std::int64_t i = 0; i < repeats; ++i) times.push_back(seconds_of(units) / static_cast<double>(units * passes * layers));
  return median(std::move(times));
}

}  // namespace lmkit::cli
