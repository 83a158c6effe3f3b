// SPDX-License-Identifier: Apache-2.0
#include "gemm_warpgroup.cuh"
#include "gemm_warpgroup.hpp"
#include "launch.cuh"

#include <lmkit/base/error.hpp>

#include <algorithm>
#include <string>

namespace lmkit::kernels::cuda {

namespace {

namespace wg = warpgroup_gemm;

using Kernel = void (*)(WarpgroupParams);

constexpr int token_counts[] = {16, 24, 32, 48, 64};
constexpr int fewest_stages = 4;        // a copier comes back after four chunks; in a shorter ring it could take a lap for the one before the last
constexpr int early_bytes = 128 << 10;  // of W, brought before x

constexpr int divide_up(int x, int y) { return (x + y - 1) / y; }

int padded(std::int64_t tokens) { return *std::ranges::find_if(token_counts, [=](int count) { return count >= tokens; }); }

template <class T, int pieces>
Kernel kernel_of(int tokens) {
  switch (tokens) {
    case 16: return wg::kernel<T, 16, pieces>;
    case 24: return wg::kernel<T, 24, pieces>;
    case 32: return wg::kernel<T, 32, pieces>;
    case 48: return wg::kernel<T, 48, pieces>;
    default: return wg::kernel<T, 64, pieces>;
  }
}

template <class T>
Kernel kernel_of(int tokens, int pieces) {
  return pieces == 1 ? kernel_of<T, 1>(tokens) : kernel_of<T, 2>(tokens);
}

// pieces: of a warpgroup
Kernel kernel_of(Dtype dtype, int tokens, int pieces) {
  return dtype == Dtype::bf16 ? kernel_of<__nv_bfloat16>(tokens, pieces) : kernel_of<__half>(tokens, pieces);
}

LaunchConfig config_of(int clusters, int splits, std::int64_t shared) noexcept {
  return {.grid = dim3(static_cast<unsigned>(clusters * splits)),
          .block = dim3(wg::threads),
          .shared = static_cast<std::size_t>(shared),
          .overlap = true,
          .cluster_blocks = static_cast<unsigned>(splits)};
}

void require(cudaError_t error) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("preparing the kernels of warpgroups failed: ") + cudaGetErrorString(error));
}

// A matrix of 16-bit values, read in boxes whose rows of 128 bytes lie swizzled in shared memory. Dimensions from the last to the first; bytes
// between neighbours in each but the last.
template <int rank>
bool encode(void* function, CUtensorMap& map, const void* matrix, const cuuint64_t (&sizes)[rank], const cuuint64_t (&strides)[rank - 1],
            const cuuint32_t (&box)[rank]) {
  constexpr cuuint32_t steps[] = {1, 1, 1, 1};
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
             &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, rank, const_cast<void*>(matrix), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

WarpgroupGemm::WarpgroupGemm() {
  int device = 0;
  cudaFuncAttributes attributes{};
  require(cudaGetDevice(&device));
  require(cudaDeviceGetAttribute(&shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  require(cudaFuncGetAttributes(&attributes, kernel_of(Dtype::bf16, 64, 1)));
  if (attributes.sharedSizeBytes == 0) return;  // not built for this device
  cudaDriverEntryPointQueryResult found{};
  require(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode_, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) return;
  shared_ -= static_cast<int>(attributes.sharedSizeBytes);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16})
    for (const int tokens : token_counts)
      for (int pieces = 1; pieces <= wg::most_pieces; ++pieces) {
        const auto* kernel = reinterpret_cast<const void*>(kernel_of(dtype, tokens, pieces));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
      }
  for (int way = 0; way < ways; ++way) require(config_of(1, way + 1, shared_).active_clusters(clusters_[way], kernel_of(Dtype::bf16, 64, 1)));
}

int WarpgroupGemm::eights_of(int way, const GemmShape& shape) const noexcept {
  // as many tiles for each cluster as it takes, and no larger than that
  const int eights = static_cast<int>(shape.rows / 8), turns = divide_up(eights, clusters_[way] * wg::most_eights), of_tile = divide_up(eights, clusters_[way] * turns);
  return shape.end == LinearEnd::gate ? divide_up(of_tile, 2) * 2 : of_tile;
}

int WarpgroupGemm::stages_of(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  for (int stages = wg::most_stages; stages >= fewest_stages; --stages)
    if (wg::shared_bytes(eights_of(way, shape), padded(tokens), way + 1, stages) <= shared_) return stages;
  return 0;
}

bool WarpgroupGemm::can_run(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  if (way < 0 || way >= ways || clusters_[way] == 0 || tokens < 1 || tokens > most_tokens || shape.rows > 1 << 30 || shape.cols > 1 << 20) return false;
  return wg::chunks_of(static_cast<int>(shape.cols)) >= way + 1 && stages_of(way, shape, tokens) > 0;
}

Status WarpgroupGemm::run(int way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept {
  const int rows = static_cast<int>(shape.rows), cols = static_cast<int>(shape.cols), tokens = padded(args.tokens), splits = way + 1;
  const int eights = eights_of(way, shape), stages = stages_of(way, shape, args.tokens), tiles = divide_up(rows / 8, eights);
  WarpgroupParams params{.weights = {},
                         .x = {},
                         .bias = static_cast<const std::uint16_t*>(args.bias),
                         .y = args.y,
                         .rows = rows,
                         .cols = cols,
                         .tokens = static_cast<int>(args.tokens),
                         .eights = eights,
                         .splits = splits,
                         .clusters = std::min(tiles, clusters_[way]),
                         .stages = stages,
                         .early = std::clamp(early_bytes / (eights * wg::eight_bytes), 1, stages),
                         .end = shape.end,
                         .is_f32 = shape.out == Dtype::f32};
  const cuuint64_t row_bytes = 2 * shape.cols, width = shape.cols, halves = shape.end == LinearEnd::gate ? 2 : 1, all_eights = rows / 8;
  if (!encode<4>(encode_, params.weights, args.weights, {width, 8, halves, all_eights / halves}, {row_bytes, rows / halves * row_bytes, 8 * row_bytes},
                 {wg::chunk_cols, 8, static_cast<cuuint32_t>(halves), static_cast<cuuint32_t>(eights / halves)}) ||
      !encode<2>(encode_, params.x, args.x, {width, static_cast<cuuint64_t>(args.tokens)}, {row_bytes}, {wg::chunk_cols, static_cast<cuuint32_t>(tokens)}))
    return refuse(stream, "a product whose matrices the driver cannot describe");
  LaunchConfig config = config_of(params.clusters, splits, wg::shared_bytes(eights, tokens, splits, stages));
  config.stream = cuda_stream(stream);
  const Kernel kernel = kernel_of(shape.dtype, tokens, divide_up(wg::pieces_of(eights), wg::groups));
  return config.launch(kernel, params) == cudaSuccess ? Status::ok : launched(stream);
}

}  // namespace lmkit::kernels::cuda
