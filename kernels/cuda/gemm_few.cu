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

constexpr int stage_counts[] = {8, 6, 5, 4}, token_tile_counts[] = {1, 2, 4};

int token_tiles_of(std::int64_t tokens) { return tokens <= 8 ? 1 : tokens <= 16 ? 2 : 4; }

template <class T, int token_tiles>
Kernel kernel_of(int stages) {
  switch (stages) {
    case 8: return few::kernel<T, token_tiles, 8>;
    case 6: return few::kernel<T, token_tiles, 6>;
    case 5: return few::kernel<T, token_tiles, 5>;
    default: return few::kernel<T, token_tiles, 4>;
  }
}

template <class T>
Kernel kernel_of(int token_tiles, int stages) {
  return token_tiles == 1 ? kernel_of<T, 1>(stages) : token_tiles == 2 ? kernel_of<T, 2>(stages) : kernel_of<T, 4>(stages);
}

Kernel kernel_of(Dtype dtype, int token_tiles, int stages) {
  return dtype == Dtype::bf16 ? kernel_of<__nv_bfloat16>(token_tiles, stages) : kernel_of<__half>(token_tiles, stages);
}

LaunchConfig config_of(int clusters, int way, std::int64_t shared) noexcept {
  return {.grid = dim3(static_cast<unsigned>(clusters << way)), .block = dim3(few::threads), .shared = static_cast<std::size_t>(shared), .cluster_blocks = way == 0 ? 0u : 1u << way};
}

void require(cudaError_t error) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("preparing the kernels for few tokens failed: ") + cudaGetErrorString(error));
}

}  // namespace

FewGemm::FewGemm() {
  int device = 0, multiprocessors = 0;
  require(cudaGetDevice(&device));
  require(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  require(cudaDeviceGetAttribute(&shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  cudaFuncAttributes attributes{};
  require(cudaFuncGetAttributes(&attributes, kernel_of(Dtype::bf16, 1, 4)));
  shared_ -= static_cast<int>(attributes.sharedSizeBytes);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16})
    for (const int token_tiles : token_tile_counts)
      for (const int stages : stage_counts) {
        const auto* kernel = reinterpret_cast<const void*>(kernel_of(dtype, token_tiles, stages));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
        // one cut of L1 and shared memory for all, so that a block may start beside those of the launch before
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
      }
  clusters_[0] = multiprocessors;
  overlaps_ = may_overlap(kernel_of(Dtype::bf16, 1, 4));  // what cannot wait for a launch cannot for a cluster either
  for (int way = 1; overlaps_ && way < warp_ways; ++way)
    require(config_of(multiprocessors >> way, way, shared_).active_clusters(clusters_[way], kernel_of(Dtype::bf16, 1, 4)));
}

int FewGemm::stages_of(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  for (const int stages : stage_counts)
    if (few::shared_bytes(static_cast<int>(shape.cols), static_cast<int>(tokens), token_tiles_of(tokens), 1 << way, stages) <= shared_) return stages;
  return 0;
}

bool FewGemm::can_run(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  if (way >= warp_ways) return warpgroups_.can_run(way - warp_ways, shape, tokens);
  if (way < 0 || clusters_[way] == 0 || tokens < 1 || tokens > few::most_tokens || shape.rows > 1 << 30 || shape.cols > 1 << 20) return false;
  if (way > 0 && few::chunks_of(static_cast<int>(shape.cols)) < few::workers << way) return false;
  return stages_of(way, shape, tokens) > 0;
}

Status FewGemm::run(int way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept {
  if (way >= warp_ways) return warpgroups_.run(way - warp_ways, shape, args, stream);
  const int rows = static_cast<int>(shape.rows), cols = static_cast<int>(shape.cols), tokens = static_cast<int>(args.tokens);
  const int token_tiles = token_tiles_of(args.tokens), splits = 1 << way, stages = stages_of(way, shape, args.tokens);
  // no more clusters than it takes for the longest to have as few tiles
  const int tiles = (rows + few::tile_rows - 1) / few::tile_rows, turns = (tiles + clusters_[way] - 1) / clusters_[way];
  const FewParams params{.weights = static_cast<const std::uint16_t*>(args.weights),
                         .bias = static_cast<const std::uint16_t*>(args.bias),
                         .x = static_cast<const std::uint16_t*>(args.x),
                         .y = args.y,
                         .rows = rows,
                         .cols = cols,
                         .tokens = tokens,
                         .splits = splits,
                         .clusters = (tiles + turns - 1) / turns,
                         .end = shape.end,
                         .is_f32 = shape.out == Dtype::f32};
  LaunchConfig config = config_of(params.clusters, way, few::shared_bytes(cols, tokens, token_tiles, splits, stages));
  config.stream = cuda_stream(stream), config.overlap = overlaps_;
  return config.launch(kernel_of(shape.dtype, token_tiles, stages), params) == cudaSuccess ? Status::ok : launched(stream);
}

}  // namespace lmkit::kernels::cuda
