// SPDX-License-Identifier: Apache-2.0
//
// From options to a pipeline: --plugin and its sugar (--tp, --kv, --quant-policy, -ctk/-ctv, --cache-max-entry-count)
// become plugin specs, specs become the three parts, and the start-up line says what was composed and what it costs.
#pragma once

#include "arguments.hpp"

#include <lmkit/pipeline.hpp>
#include <lmkit/plugin/any_allocator.hpp>
#include <lmkit/plugin/any_kv_backend.hpp>
#include <lmkit/plugin/any_parallel.hpp>
#include <lmkit/plugin/plugin_spec.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lmkit::cli {

using AnyPipeline = Pipeline<AnyParallel, AnyKvBackend, AnyAllocator>;

struct Composed {
  AnyPipeline::Parts parts;
  std::string parallel, kv, allocator;  // "tp-threads(2)", "kv-int4", "mem-ratio(0.80)"
  bool on_gpu = false;

  std::string device = {};  // "the CPU with avx512", "NVIDIA H200 in bf16"

  std::string description() const { return parallel + " | " + kv + " | " + allocator; }
};

// Where plugins are looked for.
std::vector<std::filesystem::path> plugin_folders(const Arguments& arguments);

// The KV types asked for, by --kv, --quant-policy, or -ctk and -ctv: "f16", "int8", "int4"; none: {""}.
std::vector<std::string> kv_types(const Arguments& arguments);

// What --plugin and its sugar ask for, with one of kv_types(). Where both say something about a concept, the stronger place counts.
Composed compose(const Arguments& arguments, const std::string& kv_type);
Composed compose(const Arguments& arguments);  // of a command that takes one KV type

EngineLimits limits_of(const Arguments& arguments, int default_sequences);

std::shared_ptr<const ModelFile> open_named_model(const Arguments& arguments);

// What the model will run on, which --dtype has a say in. Before the parts are used.
void choose_device(Composed& composed, const Arguments& arguments, const ModelFile& model);

// "pipeline: one-device | kv-int4 | whole-pool   weights 93.8 MiB/rank  KV 18.4 MiB/rank = 8k tokens   on the CPU with avx512"
std::string startup_line(const Composed& composed, const Ledger& ledger);

// Loads the model and says the start-up line.
std::unique_ptr<AnyPipeline> start_pipeline(const Arguments& arguments, const std::shared_ptr<const ModelFile>& model, Composed& composed,
                                            const EngineLimits& limits);

}  // namespace lmkit::cli
