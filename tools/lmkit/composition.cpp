// SPDX-License-Identifier: Apache-2.0
#include "composition.hpp"

#include "terminal.hpp"

#include <lmkit/abi/allocator.h>
#include <lmkit/abi/kv.h>
#include <lmkit/abi/parallel.h>
#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/builtin/cuda.hpp>
#include <lmkit/kernels/cpu_isa.hpp>
#include <lmkit/model/dummy_model.hpp>
#include <lmkit/plugin/registry.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>

namespace lmkit::cli {
namespace {

constexpr const char* kv_options[] = {"kv", "quant-policy", "ctk", "ctv"};  // spellings of the KV type

PluginSpec spec(std::string name, std::string setting = {}, std::string value = {}) {
  PluginSpec out{std::move(name), {}};
  if (!setting.empty()) out.settings.push_back({std::move(setting), std::move(value)});
  return out;
}

// llama.cpp's two cache types, which have one name here when they are equal.
std::string kv_of_cache_types(const Arguments& arguments) {
  const auto type = [&](const char* option) { return arguments.given(option) ? arguments.text(option) : std::string("f16"); };
  const std::string keys = type("ctk"), values = type("ctv");
  if (keys != values)
    throw Error(ErrorKind::usage, fmt::format("-ctk {} with -ctv {}", keys, values), "the same type for keys and values",
                fmt::format("-ctk {} -ctv {}, or --kv int8 or int4", keys == "f16" ? values : keys, keys == "f16" ? values : keys));
  return keys == "f16" ? "f16" : keys == "q8_0" ? "int8" : "int4";
}

// What the user set, in brackets: the value alone if it is the only one, "tp-threads(2)".
std::string named(const std::string& plugin, const PluginSpec* asked) {
  if (!asked || asked->settings.empty()) return plugin;
  if (asked->settings.size() == 1 && asked->settings[0].value != "true" && asked->settings[0].value != "false")
    return fmt::format("{}({})", plugin, asked->settings[0].value);
  std::string settings;
  for (const PluginSetting& setting : asked->settings)
    settings += fmt::format("{}{}={}", settings.empty() ? "" : ",", setting.name, setting.value);
  return fmt::format("{}({})", plugin, settings);
}

// The spec that asked for the plugin of this name (a spec may be a path).
const PluginSpec* spec_of(const std::string& plugin, const std::vector<PluginSpec>& specs, const std::vector<PluginFacts>& facts) {
  for (std::size_t i = 0; i < std::min(specs.size(), facts.size()); ++i)
    if (facts[i].id == plugin) return &specs[i];
  return nullptr;
}

// What an option says about a concept.
struct Answer {
  std::string_view concept_id;
  Place place;
  std::optional<PluginSpec> plugin;  // nothing: the built-in
};

std::vector<Answer> answers_of(const Arguments& arguments, const std::string& kv_type) {
  std::vector<Answer> answers;
  if (const auto ranks = arguments.whole("tp"))
    answers.push_back({LMKIT_PARALLEL_EXTENSION, arguments.place("tp"), *ranks > 1 ? std::optional(spec("tp-threads", "size", fmt::format("{}", *ranks))) : std::nullopt});
  if (!kv_type.empty()) {
    Place place = Place::fallback;
    for (const char* option : kv_options) place = std::min(place, arguments.place(option));
    answers.push_back({LMKIT_KV_EXTENSION, place, kv_type != "f16" ? std::optional(spec("kv-" + kv_type)) : std::nullopt});
  }
  if (arguments.given("cache-max-entry-count"))
    answers.push_back({LMKIT_ALLOCATOR_EXTENSION, arguments.place("cache-max-entry-count"), spec("mem-ratio", "ratio", arguments.text("cache-max-entry-count"))});
  return answers;
}

// Plugins that are named, and those that options stand for.
struct AskedFor {
  std::vector<PluginSpec> specs;
  std::vector<Answer> answers;
};

AskedFor asked_for(const Arguments& arguments, const std::string& kv_type, const PluginRegistry& registry) {
  AskedFor asked{.specs = {}, .answers = answers_of(arguments, kv_type)};
  const Place place = arguments.place("plugin");
  for (const std::string& text : arguments.texts("plugin")) {
    PluginSpec named = parse_plugin_spec(text);
    const bool may_differ = std::ranges::any_of(asked.answers, [&](const Answer& answer) { return answer.place != place; });
    const std::vector<std::string> concepts = may_differ ? registry.inspect(named).extensions : std::vector<std::string>{};
    const auto is_about = [&](const Answer& answer) { return std::ranges::find(concepts, answer.concept_id) != concepts.end(); };
    if (std::ranges::any_of(asked.answers, [&](const Answer& answer) { return answer.place < place && is_about(answer); })) continue;
    std::erase_if(asked.answers, [&](const Answer& answer) { return answer.place > place && is_about(answer); });
    asked.specs.push_back(std::move(named));
  }
  for (const Answer& answer : asked.answers)
    if (answer.plugin) asked.specs.push_back(*answer.plugin);
  return asked;
}

// --device auto takes a GPU if there is one and nothing that was asked for is for CPUs alone.
bool wants_gpu(const Arguments& arguments, const Ranks& ranks) {
  const std::string device = arguments.text("device");
  return device == "cuda" || (device == "auto" && !(ranks.size > 1 && ranks.device == LMKIT_CPU) && has_gpu());
}

void require_cuda_half(const PluginFacts& plugin) {
  if (plugin.cuda_archs.empty())
    throw Error(ErrorKind::plugin, fmt::format("the plugin {} has no CUDA half", plugin.id), "one that was built with CUDA", "--device cpu, or another plugin");
}

}  // namespace

std::vector<std::filesystem::path> plugin_folders(const Arguments& arguments) {
  const std::vector<std::string> named = arguments.texts("plugin-path");
  return arguments.place("plugin-path") == Place::file ? plugin_search_path({}, named) : plugin_search_path(named);
}

std::vector<std::string> kv_types(const Arguments& arguments) {
  std::vector<const char*> used;
  for (const char* option : kv_options)
    if (arguments.given(option)) used.push_back(option);
  if (used.empty()) return {""};
  const bool cache_types = arguments.given("ctk") || arguments.given("ctv");
  if (used.size() > 1 && !(cache_types && !arguments.given("kv") && !arguments.given("quant-policy")))
    throw Error(ErrorKind::usage, fmt::format("--{} and --{} name the KV type twice", used[0], used[1]), "one of them");
  if (arguments.given("kv")) return arguments.texts("kv");
  if (cache_types) return {kv_of_cache_types(arguments)};
  const std::string bits = arguments.text("quant-policy");
  return {bits == "0" ? "f16" : "int" + bits};
}

Composed compose(const Arguments& arguments, const std::string& kv_type) {
  const PluginRegistry registry(plugin_folders(arguments));
  const auto [specs, answers] = asked_for(arguments, kv_type, registry);
  const Composition found = registry.compose(specs);
  const auto says_built_in = [&](const char* concept_id) {
    return std::ranges::any_of(answers, [&](const Answer& answer) { return answer.concept_id == concept_id && !answer.plugin; });
  };
  if (found.kv && says_built_in(LMKIT_KV_EXTENSION))
    throw Error(ErrorKind::plugin, fmt::format("--kv f16 and the plugin {} both say how keys and values are stored", found.kv->name),
                "one of them");
  const auto described = [&](const auto& source, const char* built_in) {
    return source ? named(source->name, spec_of(source->name, specs, found.plugins)) : std::string(built_in);
  };
  const AnyKvBackend::Source kv = found.kv ? *found.kv : AnyKvBackend::built_in<KvF16>("kv-f16");
  const auto group = found.parallel ? std::make_shared<AnyParallel::Group>(*found.parallel) : std::make_shared<AnyParallel::Group>();
  if (group->ranks().size > 1 && says_built_in(LMKIT_PARALLEL_EXTENSION))
    throw Error(ErrorKind::usage, fmt::format("--tp 1 with {} ranks of {}", group->ranks().size, found.parallel->name), "one of them");
  const bool on_gpu = wants_gpu(arguments, group->ranks());
  if (on_gpu && found.kv)
    for (const PluginFacts& plugin : found.plugins)
      if (plugin.id == found.kv->name) require_cuda_half(plugin);
  return {.parts = {.group = group,
                    .make_kv = [kv](const KvShape& shape) { return AnyKvBackend(kv, shape); },
                    .allocator = found.allocator ? AnyAllocator(*found.allocator) : AnyAllocator()},
          .parallel = described(found.parallel, "one-device"),
          .kv = described(found.kv, "kv-f16"),
          .allocator = described(found.allocator, "whole-pool"),
          .on_gpu = on_gpu};
}

Composed compose(const Arguments& arguments) {
  const std::vector<std::string> types = kv_types(arguments);
  if (types.size() != 1)
    throw Error(ErrorKind::usage, fmt::format("--kv names {} types", types.size()), "one for this command", "lmkit bench or lmkit eval, which compare them");
  return compose(arguments, types.front());
}

EngineLimits limits_of(const Arguments& arguments, int default_sequences) {
  EngineLimits limits;
  limits.threads = static_cast<int>(arguments.whole("threads").value_or(available_cpus()));
  limits.max_sequences = static_cast<int>(arguments.whole("max-batch-size").value_or(default_sequences));
  limits.session_len = static_cast<int>(arguments.whole("session-len").value_or(0));
  limits.max_batch_tokens = static_cast<int>(arguments.whole("max-batch-tokens").value_or(0));
  limits.eager = arguments.flag("enforce-eager");
  limits.device_memory = arguments.bytes("device-memory-limit").value_or(0);
  return limits;
}

std::shared_ptr<const ModelFile> open_named_model(const Arguments& arguments) {
  if (arguments.text("load-format") == "dummy" && !arguments.given("model-path"))
    throw Error(ErrorKind::usage, "--load-format dummy without a model", "a config.json, or a folder that has one", "--model-path tests/configs/Llama-3.1-8B");
  if (arguments.text("load-format") == "dummy") return open_dummy_model(arguments.text("model-path"));
  return open_model(resolve_model(arguments.text("model-path")));
}

void choose_device(Composed& composed, const Arguments& arguments, const ModelFile& model) {
  composed.device = fmt::format("the CPU with {}", kernels::name_of(kernels::cpu_isa()));
  if (!composed.on_gpu) return;
  const std::string asked = arguments.text("dtype");
  const Dtype dtype = asked == "auto" ? gpu_dtype(model) : asked == "f16" ? Dtype::f16 : Dtype::bf16;
  composed.parts.open_device = open_gpus(dtype);
  composed.device = fmt::format("{} in {}", cuda_library().gpu(0).name, dtype == Dtype::f16 ? "f16" : "bf16");
}

std::string startup_line(const Composed& composed, const Ledger& ledger) {
  std::int64_t weights = 0, pool = 0;  // of the rank that holds most
  for (const RankLedger& rank : ledger.ranks) {
    weights = std::max(weights, rank.weights_mapped + rank.weights_packed);
    pool = std::max(pool, rank.kv_pool);
  }
  return fmt::format("pipeline: {}   weights {}/rank  KV {}/rank = {} tokens   on {}", composed.description(), bytes_for_people(weights),
                     bytes_for_people(pool), count_for_people(ledger.kv_tokens()), composed.device);
}

std::unique_ptr<AnyPipeline> start_pipeline(const Arguments& arguments, const std::shared_ptr<const ModelFile>& model, Composed& composed,
                                            const EngineLimits& limits) {
  choose_device(composed, arguments, *model);
  std::unique_ptr<AnyPipeline> pipeline;
  {
    const Waiting waiting("loading the model");
    pipeline = std::make_unique<AnyPipeline>(model, std::move(composed.parts), limits);
  }
  say(startup_line(composed, pipeline->ledger()));
  return pipeline;
}

}  // namespace lmkit::cli
