// SPDX-License-Identifier: Apache-2.0
#include "gemm_library.hpp"

#include <lmkit/base/error.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <span>
#include <string>

namespace lmkit::kernels::cuda {

namespace {

constexpr int most_candidates = 16;

cudaDataType cuda_type(Dtype type) { return type == Dtype::f32 ? CUDA_R_32F : type == Dtype::f16 ? CUDA_R_16F : CUDA_R_16BF; }

// The toolkit's own version first, then any, then the one before, whose functions are the same; where the loader looks, then
// where toolkits are installed.
void* open_library() {
  const std::string base = "libcublasLt.so", names[] = {base + '.' + std::to_string(CUBLAS_VER_MAJOR), base, base + ".12"};
  std::vector<std::string> folders = {""};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* folder = std::getenv(variable); folder && *folder == '/') folders.push_back(std::string(folder) + "/lib64/");
  folders.push_back("/usr/local/cuda/lib64/");
  std::string places = "the loader's path";
  for (const std::string& folder : folders) {
    for (const std::string& name : names)
      if (void* library = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    if (!folder.empty()) places += ", " + folder;
  }
  throw Error(ErrorKind::device, "cannot load cuBLASLt (" + names[0] + ", " + names[1] + ", " + names[2] + " in " + places + ")",
              "the matrix library of CUDA " + std::to_string(CUBLAS_VER_MAJOR),
              "installing libcublas of the CUDA toolkit, or naming the toolkit's folder in CUDA_HOME");
}

template <class Function>
void find(void* library, Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (!function) throw Error(ErrorKind::device, std::string("cuBLASLt has no ") + name, "version 12 or later", "a newer CUDA toolkit");
}

Status outcome(const CublasLt& lt, cublasStatus_t status, const Stream& stream) noexcept {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::ok;
  if (stream.host) stream.host->fail(lt.status_string(status));
  return Status::device_error;
}

}  // namespace

std::string gpu_name() {
  int device = 0;
  cudaDeviceProp properties{};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("reading the device's properties failed: ") + cudaGetErrorString(error));
  return std::string(properties.name) + ' ' + std::to_string(properties.multiProcessorCount);
}

CublasLt::CublasLt() {
  void* library = open_library();
  find(library, version, "cublasLtGetVersion");
  find(library, status_string, "cublasLtGetStatusString");
  find(library, create, "cublasLtCreate");
  find(library, destroy, "cublasLtDestroy");
  find(library, desc_create, "cublasLtMatmulDescCreate");
  find(library, desc_destroy, "cublasLtMatmulDescDestroy");
  find(library, desc_set, "cublasLtMatmulDescSetAttribute");
  find(library, layout_create, "cublasLtMatrixLayoutCreate");
  find(library, layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(library, layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(library, preference_create, "cublasLtMatmulPreferenceCreate");
  find(library, preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(library, preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(library, heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(library, check, "cublasLtMatmulAlgoCheck");
  find(library, matmul, "cublasLtMatmul");
  require(create(&handle), "cublasLtCreate");
}

CublasLt::~CublasLt() { destroy(handle); }

void CublasLt::require(cublasStatus_t status, const char* what) const {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(ErrorKind::device, std::string(what) + " failed: " + status_string(status));
}

LibraryGemm::LibraryGemm(const CublasLt& lt, const GemmShape& shape, bool has_bias)
    : lt_(lt), shape_(shape), seeds_bias_(has_bias && shape.out != shape.dtype) {
  const auto in = cuda_type(shape.dtype), out = cuda_type(shape.out);
  lt.require(lt.desc_create(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const std::int32_t transposed = CUBLAS_OP_T;
  lt.require(lt.desc_set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), "setting the transposition");
  if (has_bias && !seeds_bias_) {
    const std::uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    lt.require(lt.desc_set(desc_, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue), "setting the bias");
  }
  lt.require(lt.layout_create(&weights_, in, shape.cols, shape.rows, shape.cols), "describing the weights");
  lt.require(lt.layout_create(&x_, in, shape.cols, 1, shape.cols), "describing x");
  lt.require(lt.layout_create(&y_, out, shape.rows, 1, shape.rows), "describing y");

  lt.require(lt.preference_create(&preference_), "cublasLtMatmulPreferenceCreate");
  const std::uint64_t workspace = Gemm::workspace_bytes;
  const std::uint32_t alignment = 16, sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;  // parts are added in fp32
  lt.require(lt.preference_set(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace), "limiting the workspace");
  lt.require(lt.preference_set(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums), "choosing how parts are added");
  for (const auto matrix : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    lt.require(lt.preference_set(preference_, matrix, &alignment, sizeof alignment), "setting the alignment");
}

LibraryGemm::~LibraryGemm() {
  lt_.preference_destroy(preference_);
  lt_.layout_destroy(y_);
  lt_.layout_destroy(x_);
  lt_.layout_destroy(weights_);
  lt_.desc_destroy(desc_);
}

cublasStatus_t LibraryGemm::set_tokens(std::int64_t tokens) noexcept {
  const std::uint64_t cols = static_cast<std::uint64_t>(tokens);
  const auto status = lt_.layout_set(x_, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols);
  return status == CUBLAS_STATUS_SUCCESS ? lt_.layout_set(y_, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols) : status;
}

std::vector<LibraryAlgorithm> LibraryGemm::candidates(std::int64_t tokens) {
  lt_.require(set_tokens(tokens), "setting the number of tokens");
  cublasLtMatmulHeuristicResult_t results[most_candidates];
  int count = 0;
  if (lt_.heuristic(lt_.handle, desc_, weights_, x_, y_, y_, preference_, most_candidates, results, &count) != CUBLAS_STATUS_SUCCESS) return {};
  std::vector<LibraryAlgorithm> algorithms;
  for (const auto& result : std::span(results, count))
    if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back({result.algo});
  return algorithms;
}

bool LibraryGemm::takes(const LibraryAlgorithm& algorithm, std::int64_t first, std::int64_t last) {
  for (int n = 0; n <= 16; ++n) {
    cublasLtMatmulHeuristicResult_t result{};
    if (set_tokens(first + (last - first) * n / 16) != CUBLAS_STATUS_SUCCESS) return false;
    if (lt_.check(lt_.handle, desc_, weights_, x_, y_, y_, &algorithm, &result) != CUBLAS_STATUS_SUCCESS) return false;
    if (result.workspaceSize > Gemm::workspace_bytes) return false;
  }
  return true;
}

Status LibraryGemm::run(const LibraryAlgorithm& algorithm, const GemmArgs& args, void* workspace, Stream stream) noexcept {
  const float one = 1.f, zero = 0.f;
  const bool adds = seeds_bias_ || shape_.end == LinearEnd::add;
  if (const auto status = set_tokens(args.tokens); status != CUBLAS_STATUS_SUCCESS) return outcome(lt_, status, stream);
  if (seeds_bias_) {
    const Status seeded = seed_with_bias(args.bias, static_cast<float*>(args.y), args.tokens, shape_.rows, shape_.dtype, stream);
    if (seeded != Status::ok) return seeded;
  } else if (args.bias) {
    const auto status = lt_.desc_set(desc_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias, sizeof args.bias);
    if (status != CUBLAS_STATUS_SUCCESS) return outcome(lt_, status, stream);
  }
  return outcome(lt_, lt_.matmul(lt_.handle, desc_, &one, args.weights, weights_, args.x, x_, adds ? &one : &zero, args.y, y_, args.y, y_,
                                 &algorithm, workspace, Gemm::workspace_bytes, reinterpret_cast<cudaStream_t>(stream.handle)),
                 stream);
}

}  // namespace lmkit::kernels::cuda
