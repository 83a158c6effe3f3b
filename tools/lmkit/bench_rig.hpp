// SPDX-License-Identifier: Apache-2.0
//
// BenchRig: what one rank of an engine has, laid out by the engine's own lay_out, with fresh random numbers in it and a way
// to time what the engine launches. Works on any device with any KV backend.
#pragma once

#include "composition.hpp"

#include <lmkit/builtin/one_device.hpp>
#include <lmkit/engine/rank.hpp>

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

namespace lmkit::cli {

// One measurement. A call moves at least `bytes` or computes at least `flops`; what takes the machine longer is its limit.
struct BenchRow {
  std::string what;     // "gemm qkv", "attend decode"
  std::string kv = {};  // of what depends on it
  std::int64_t tokens = 0;
  std::int64_t sequences = 0, depth = 0;  // of attention; ragged: 1 to 2 * depth
  bool ragged = false;
  double bytes = 0, flops = 0;
  double touched = 0;   // bytes between two calls that read the same ones
  double seconds = 0;
  std::optional<double> error = {};
};

// |result - expected| / |expected|, Euclidean.
class RelativeError {
 public:
  void add(double value, double expected) {
    off_ += (value - expected) * (value - expected);
    all_ += expected * expected;
  }
  double value() const { return std::sqrt(off_ / all_); }

 private:
  double off_ = 0, all_ = 0;
};

inline Status both(Status first, Status second) noexcept { return first == Status::ok ? second : first; }

// The first layers of a model.
class FirstLayers final : public ModelFile {
 public:
  FirstLayers(std::shared_ptr<const ModelFile> whole, int layers) : whole_(std::move(whole)), config_(whole_->config()) { config_.layers = layers; }

  const ModelConfig& config() const noexcept override { return config_; }
  const TokenizerData& tokenizer() const noexcept override { return whole_->tokenizer(); }
  std::optional<MatrixView> find(std::string_view name) const noexcept override { return whole_->find(name); }

 private:
  std::shared_ptr<const ModelFile> whole_;
  ModelConfig config_;
};

class BenchRig {
 public:
  using BenchStep = Step<OneDevice, AnyKvBackend>;

  // A pool as large as the largest of `pools` (in blocks) that fits. Throws Error(memory) if none does.
  BenchRig(const ModelFile& model, const AnyPipeline::Parts& parts, const StepLimits& limits, std::int64_t device_memory,
           std::span<const int> pools, std::uint64_t seed);

  const ModelFile& model() const noexcept { return model_; }
  const ModelConfig& config() const noexcept { return model_.config(); }
  const StepLimits& limits() const noexcept { return limits_; }
  kernels::Device& device() noexcept { return *device_; }
  Stream threads() noexcept { return threads_.stream(); }
  const Weights& weights() const noexcept { return memory_.weights; }
  const Activations& activations() const noexcept { return memory_.activations; }
  const StepRoom& room() const noexcept { return memory_.step; }
  const std::vector<float>& rope_table() const noexcept { return rope_table_; }  // on the host
  std::int64_t kv_layer_bytes() const noexcept { return memory_.pool.layer_stride; }
  int blocks() const noexcept { return blocks_; }
  std::mt19937_64& random() noexcept { return random_; }

  // --- memory: both wait until it is done

  void put(void* to, const void* from, std::int64_t bytes);
  std::vector<std::byte> get(const void* from, std::int64_t bytes);
  // Normal values with deviation `spread`.
  void randomise(void* to, std::int64_t count, Dtype dtype, float spread = 1);
  std::vector<float> values(const void* from, std::int64_t count, Dtype dtype);

  // --- steps

  // What the steps below are about; makes its arrays known to the device.
  void begin(StepPlan plan);
  // plan and activations as the engine would have them; `activations` outlives the step.
  BenchStep step(const Activations& activations);
  const StepArrays& arrays() const noexcept { return arrays_; }

  // --- work

  void run(const std::function<Status()>& work);  // throws Error(device) with the reason of a failure
  // Of one call, the median of `repeats` measurements; call(layer) is made for the layers in turn. On a device with a queue
  // it is recorded and replayed.
  double seconds(const std::function<Status(int layer)>& call, std::int64_t repeats);

 private:
  void wait();

  const ModelFile& model_;
  StepLimits limits_;
  TaskPool threads_;
  RankShape shape_;
  std::unique_ptr<kernels::Device> device_;
  AnyKvBackend kv_;
  int blocks_ = 0;
  std::unique_ptr<Arena> arena_;
  RankMemory memory_;
  std::vector<float> rope_table_, normals_;
  std::vector<std::int64_t> vocabulary_shards_;
  OneDevice parallel_;
  StepPlan plan_;
  StepArrays arrays_;
  std::mt19937_64 random_;
};

float value_at(const std::byte* values, std::int64_t index, Dtype dtype) noexcept;  // of an array of this type

}  // namespace lmkit::cli
