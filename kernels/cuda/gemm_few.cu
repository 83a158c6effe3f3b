// SPDX-License-Identifier: Apache-2.0
#include "gemm_few.cuh"
#include "gemm_few.hpp"
#include "launch.cuh"

#include <lmkit/base/error.hpp>

#include <algorithm>
#include <string>

namespace lmkit::kernels::cuda {

namespace {

using Kernel = void (*)(FewParams);

int token_tiles_of(std::int64_t tokens) { return tokens <= 8 ? 1 : tokens <= 16 ? 2 : 4; }

template <class T, int stages>
Kernel kernel_of(int token_tiles) {
  return token_tiles == 1 ? few::kernel<T, 1, stages> : token_tiles == 2 ? few::kernel<T, 2, stages> : few::kernel<T, 4, stages>;
}

Kernel kernel_of(Dtype dtype, int token_tiles, int stages) {
  if (dtype == Dtype::bf16) return stages == 8 ? kernel_of<__nv_bfloat16, 8>(token_tiles) : kernel_of<__nv_bfloat16, 4>(token_tiles);
  return stages == 8 ? kernel_of<__half, 8>(token_tiles) : kernel_of<__half, 4>(token_tiles);
}

void require(cudaError_t error) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("preparing the kernels for few tokens failed: ") + cudaGetErrorString(error));
}

}  // namespace

FewGemm::FewGemm() {
  int device = 0;
  require(cudaGetDevice(&device));
  require(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
  require(cudaDeviceGetAttribute(&block_shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  require(cudaDeviceGetAttribute(&shared_, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16})
    for (const int token_tiles : {1, 2, 4})
      for (const int stages : {4, 8}) {
        const auto* kernel = reinterpret_cast<const void*>(kernel_of(dtype, token_tiles, stages));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, block_shared_));
        // one cut of L1 and shared memory for all, so that a block may start beside those of the launch before
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
      }
  cudaFuncAttributes attributes{};
  require(cudaFuncGetAttributes(&attributes, kernel_of(Dtype::bf16, 1, 4)));
  sm90_ = attributes.ptxVersion >= 90;  // what was compiled for less can neither wait for a launch nor for a cluster
}

bool FewGemm::can_run(FewWay way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  if (tokens < 1 || tokens > most_tokens || shape.rows > 1 << 30 || shape.cols > 1 << 20) return false;
  if (way.splits > 1 && (!sm90_ || few::chunks_of(static_cast<int>(shape.cols)) < way.splits * few::warps)) return false;
  const int tokens_now = static_cast<int>(tokens);
  constexpr int reserved = 1024;  // of each block, by the system
  return few::shared_bytes(static_cast<int>(shape.cols), tokens_now, token_tiles_of(tokens), way.splits, way.stages) <=
         std::min(block_shared_, shared_ / way.blocks - reserved);
}

Status FewGemm::run(FewWay way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept {
  const int rows = static_cast<int>(shape.rows), cols = static_cast<int>(shape.cols), tokens = static_cast<int>(args.tokens);
  const int token_tiles = token_tiles_of(args.tokens), tiles = (rows + few::tile_rows - 1) / few::tile_rows;
  // no more clusters than it takes for the longest to have as few tiles
  const int most = std::max(1, multiprocessors_ * way.blocks / way.splits), turns = (tiles + most - 1) / most;
  const FewParams params{.weights = static_cast<const std::uint16_t*>(args.weights),
                         .bias = static_cast<const std::uint16_t*>(args.bias),
                         .x = static_cast<const std::uint16_t*>(args.x),
                         .y = args.y,
                         .rows = rows,
                         .cols = cols,
                         .tokens = tokens,
                         .splits = way.splits,
                         .clusters = (tiles + turns - 1) / turns,
                         .is_f32 = shape.out == Dtype::f32};
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(way.splits), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(params.clusters * way.splits);
  config.blockDim = dim3(few::threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(few::shared_bytes(cols, tokens, token_tiles, way.splits, way.stages));
  config.stream = cuda_stream(stream);
  config.attrs = attributes;
  config.numAttrs = !sm90_ ? 0 : way.splits == 1 ? 1 : 2;
  if (cudaLaunchKernelEx(&config, kernel_of(shape.dtype, token_tiles, way.stages), params) != cudaSuccess) return launched(stream);
  return Status::ok;
}

}  // namespace lmkit::kernels::cuda
