// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/builtin/cuda.hpp>

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include <dlfcn.h>

namespace lmkit {
namespace {

namespace fs = std::filesystem;
using kernels::cuda::CudaLibrary;

constexpr const char* remedy = "--device cpu, or a build of lmkit with CUDA";

fs::path library_path() {
  if (const char* const named = std::getenv("LMKIT_CUDA_LIBRARY"); named && *named) return fs::absolute(named);
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().parent_path() / "lib" / "lmkit" / "lmkit-cuda.so";
}

// Never unloaded: its kernels are registered with the driver.
const CudaLibrary& load() {
  const fs::path path = library_path();
  if (!fs::exists(path)) throw Error(ErrorKind::device, fmt::format("{} is not there", path.string()), "lmkit's GPU half", remedy);
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw Error(ErrorKind::device, fmt::format("{} cannot be loaded: {}", path.string(), dlerror()), {}, remedy);
  const auto* const table = static_cast<const CudaLibrary*>(dlsym(library, "lmkit_cuda_library"));
  if (!table || std::string_view(table->build) != LMKIT_BUILD) {
    throw Error(ErrorKind::device, fmt::format("{} belongs to {}", path.string(), table ? table->build : "something else"), LMKIT_BUILD,
                "installing both from the same build");
  }
  return *table;
}

}  // namespace

const CudaLibrary& cuda_library() {
  static const CudaLibrary& library = load();
  return library;
}

bool has_gpu() noexcept {
  try {
    return cuda_library().gpu(0).usable;
  } catch (const Error&) {
    return false;
  }
}

Dtype gpu_dtype(const ModelFile& model) {
  const auto weights = model.find("blk.0.attn_q.weight");
  return weights && weights->format == WeightFormat::bf16 ? Dtype::bf16 : Dtype::f16;
}

kernels::OpenDevice open_gpus(Dtype dtype) {
  return [dtype](int rank, Stream threads) { return cuda_library().open(rank, dtype, threads); };
}

}  // namespace lmkit
