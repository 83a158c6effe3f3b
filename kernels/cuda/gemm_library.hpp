// SPDX-License-Identifier: Apache-2.0
//
// cuBLASLt, loaded when first wanted, and one product of matrices in its terms.
//
// Its matrices are column-major: our W (rows, cols) is its A (cols x rows), taken transposed; x (tokens, cols) is its B
// (cols x tokens), y (tokens, rows) its D (rows x tokens).
#pragma once

#include <lmkit/kernels/cuda/gemm.hpp>

#include <cublasLt.h>

#include <string>
#include <vector>

namespace lmkit::kernels::cuda {

// The functions of the shared library, which stays loaded. Throws Error(device): what was looked for, what provides it.
struct CublasLt {
  CublasLt();

  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmul) matmul;

  cublasLtHandle_t handle = nullptr;  // of the device that was current
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;

  void require(cublasStatus_t status, const char* what) const;  // throws Error(device)
};

// Of the current device, with its multiprocessors: what the library's choices, and ours, depend on. Throws Error(device).
std::string gpu_name();

// One of the library's algorithms, with its settings. (A name of its own: nvcc 13 stops at containers of the library's struct,
// which has none.)
struct LibraryAlgorithm : cublasLtMatmulAlgo_t {};

// One shape, with or without bias, for any number of tokens; without a gate, whose scratch is the y here.
class LibraryGemm {
 public:
  LibraryGemm(const CublasLt& lt, const GemmShape& shape, bool has_bias);
  ~LibraryGemm();
  LibraryGemm(const LibraryGemm&) = delete;

  // What the heuristic names, best first; the same in each call with the same library on the same GPU.
  std::vector<LibraryAlgorithm> candidates(std::int64_t tokens);

  // Whether the algorithm takes every one of 17 token counts spread over [first, last].
  bool takes(const LibraryAlgorithm& algorithm, std::int64_t first, std::int64_t last);

  Status run(const LibraryAlgorithm& algorithm, const GemmArgs& args, void* workspace, Stream stream) noexcept;

 private:
  cublasStatus_t set_tokens(std::int64_t tokens) noexcept;

  const CublasLt& lt_;
  GemmShape shape_;
  bool seeds_bias_;  // the library adds a bias of y's type alone; one of another type is written to y, and the product added
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t weights_ = nullptr, x_ = nullptr, y_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

// y[t] = bias for every token: bias (rows) of dtype, y (tokens, rows) f32.
Status seed_with_bias(const void* bias, float* y, std::int64_t tokens, std::int64_t rows, Dtype dtype, Stream stream) noexcept;

}  // namespace lmkit::kernels::cuda
