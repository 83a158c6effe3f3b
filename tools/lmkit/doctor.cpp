// SPDX-License-Identifier: Apache-2.0
//
// lmkit doctor: looks at what lmkit needs from a machine. Each finding that is not good comes with a remedy.
#include "commands.hpp"
#include "composition.hpp"
#include "machine.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/base/task_pool.hpp>
#include <lmkit/builtin/cuda.hpp>
#include <lmkit/kernels/cpu_isa.hpp>
#include <lmkit/kernels/machine_limits.hpp>
#include <lmkit/model/model_file.hpp>
#include <lmkit/plugin/registry.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace lmkit::cli {
namespace {

enum class Health { good, warning };

struct Finding {
  const char* subject;
  Health health;
  std::string found;
  std::string remedy;
};

Finding look_at_cpu(const Machine& machine) {
  const kernels::CpuIsa isa = kernels::cpu_isa();
  const std::string found = fmt::format("{}, kernels for {}", machine.cpu, kernels::name_of(isa));
  if (isa != kernels::CpuIsa::baseline) return {"CPU", Health::good, found, {}};
  return {"CPU", Health::warning, found, std::getenv("LMKIT_CPU_ISA") ? "unset LMKIT_CPU_ISA, if the CPU can do more"
                                                                  : "a CPU with AVX2 or AVX-512 is several times as fast"};
}

Finding look_at_caches(const Machine& machine) {
  std::string found;
  for (const CpuCache& cache : machine.caches)
    found += fmt::format("{}L{} {}", found.empty() ? "" : ", ", cache.level, bytes_for_people(cache.bytes));
  return {"caches", Health::good, found.empty() ? "the system does not say" : found, {}};
}

Finding look_at_threads(int threads) {
  const int cpus = available_cpus();
  if (threads > cpus)
    return {"threads", Health::warning, fmt::format("{} threads on {} CPUs", threads, cpus), fmt::format("--threads {}", cpus)};
  return {"threads", Health::good, fmt::format("{} of {} CPUs", threads, cpus), {}};
}

Finding look_at_memory(const Machine& machine) {
  const std::string found = fmt::format("{}, {} available", bytes_for_people(machine.memory), bytes_for_people(machine.available));
  constexpr std::int64_t enough = std::int64_t{512} << 20;  // the default model with a context of 8192 tokens
  if (machine.available >= enough) return {"memory", Health::good, found, {}};
  return {"memory", Health::warning, found, "end other programs, or --plugin kv-int4 and a smaller --session-len"};
}

Finding look_at_bandwidth(int threads) {
  const double rate = read_bandwidth(threads, std::max(std::int64_t{256} << 20, 4 * kernels::last_cache_bytes()));
  return {"read bandwidth", Health::good, fmt::format("{:.1f} GB/s from memory with {} threads", rate / 1e9, threads), {}};
}

Finding look_at_gpu(int number) {
  try {
    const auto gpu = cuda_library().gpu(number);
    const std::string found = fmt::format("{} (compute capability {}.{}), {}, {} free; built for {}", gpu.name, gpu.major, gpu.minor,
                                          bytes_for_people(gpu.memory), bytes_for_people(gpu.free), cuda_library().archs);
    if (!gpu.usable) return {"GPU", Health::warning, found, "a build with this GPU in LMKIT_CUDA_ARCHS"};
    if (gpu.free >= gpu.memory / 2) return {"GPU", Health::good, found, {}};
    return {"GPU", Health::warning, found, "end other programs on the GPU (nvidia-smi lists them), or --device-memory-limit"};
  } catch (const Error& error) {  // the others may do
    return {"GPU", Health::warning, error.found(), error.remedy()};
  }
}

// One finding for each GPU, or one that says why there is none to use.
std::vector<Finding> look_at_gpus() {
  if (!std::filesystem::exists("/dev/nvidia0") && !std::filesystem::exists("/dev/dxg"))
    return {{"GPU", Health::good, "no NVIDIA device; lmkit runs on the CPU", {}}};
  try {
    const int count = cuda_library().count();
    std::vector<Finding> findings;
    for (int number = 0; number < count; ++number) findings.push_back(look_at_gpu(number));
    return findings;
  } catch (const Error& error) {
    return {{"GPU", Health::warning, error.found(), error.remedy()}};
  }
}

std::vector<Finding> look_at_plugins(const Arguments& arguments) {
  const auto folders = plugin_folders(arguments);
  const PluginRegistry registry(folders);
  std::string names;
  std::vector<Finding> findings;
  for (const FoundPlugin& found : registry.list()) {
    if (found.problem.empty()) {
      if (!found.shadowed) names += fmt::format("{}{}", names.empty() ? "" : ", ", found.name);
    } else {
      findings.push_back({"plugin", Health::warning, fmt::format("{}: {}", found.file.string(), found.problem), "rebuild it for this lmkit, or remove it"});
    }
  }
  std::string where;
  for (const auto& folder : folders) where += fmt::format("{}{}", where.empty() ? "" : ":", folder.string());
  if (names.empty()) findings.push_back({"plugins", Health::warning, "none in " + where, "--plugin-path DIR or LMKIT_PLUGIN_PATH"});
  else findings.push_back({"plugins", Health::good, fmt::format("{} in {}", names, where), {}});
  return findings;
}

Finding look_at_model() {
  try {
    const std::string path = resolve_model("");
    const auto model = open_model(path);
    return {"default model", Health::good, fmt::format("{} ({} layers)", path, model->config().layers), {}};
  } catch (const Error& error) {
    return {"default model", Health::warning, error.found(), error.remedy().empty() ? "tools/quickstart fetches it" : error.remedy()};
  }
}

}  // namespace

int doctor_command(const Arguments& arguments) {
  if (!arguments.operands().empty()) throw Error(ErrorKind::usage, "lmkit doctor takes no operands");
  const int threads = static_cast<int>(arguments.whole("threads").value_or(available_cpus()));
  const Machine machine = this_machine();
  std::vector<Finding> findings{look_at_cpu(machine), look_at_caches(machine), look_at_threads(threads), look_at_memory(machine)};
  if (machine.available > (std::int64_t{1} << 30)) findings.push_back(look_at_bandwidth(threads));
  for (Finding& finding : look_at_gpus()) findings.push_back(std::move(finding));
  for (Finding& finding : look_at_plugins(arguments)) findings.push_back(std::move(finding));
  findings.push_back(look_at_model());

  boost::json::array items;
  static constexpr const char* names[] = {"ok", "warning"};
  for (const Finding& finding : findings) {
    const char* name = names[static_cast<int>(finding.health)];
    if (arguments.flag("json")) {
      items.push_back({{"subject", finding.subject}, {"health", name}, {"found", finding.found}, {"remedy", finding.remedy}});
      continue;
    }
    print(fmt::format("{:<8}{:<16}{}\n", name, finding.subject, finding.found));
    if (!finding.remedy.empty()) print(fmt::format("{:<24}try: {}\n", "", finding.remedy));
  }
  if (arguments.flag("json")) print(boost::json::serialize(boost::json::object{{"schema", "lmkit.doctor/1"}, {"findings", items}}) + "\n");
  return 0;
}

}  // namespace lmkit::cli
