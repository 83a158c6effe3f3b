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

struct Way {
  int splits, pieces;
};
constexpr Way all_ways[WarpgroupGemm::ways] = {{2, 1}, {4, 1}, {8, 1}, {16, 1}, {4, 4}, {8, 4}};

constexpr int token_counts[] = {16, 24, 32, 48, 64};
constexpr int fewest_stages = 3;

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
Kernel kernel_of(int tokens, int pieces) { return pieces == 1 ? kernel_of<T, 1>(tokens) : kernel_of<T, 4>(tokens); }

Kernel kernel_of(Dtype dtype, int tokens, int pieces) {
  return dtype == Dtype::bf16 ? kernel_of<__nv_bfloat16>(tokens, pieces) : kernel_of<__half>(tokens, pieces);
}

// A launch's attributes: overlap with the launch before, clusters.
struct Launch {
  Launch(int clusters, int splits, std::int64_t shared, cudaStream_t stream) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {static_cast<unsigned>(splits), 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = dim3(static_cast<unsigned>(clusters * splits));
    config.blockDim = dim3(wg::threads);
    config.dynamicSmemBytes = static_cast<std::size_t>(shared);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
  }
  Launch(const Launch&) = delete;
  cudaLaunchAttribute attributes[2]{};
  cudaLaunchConfig_t config{};
};

void require(cudaError_t error) {
  if (error != cudaSuccess) throw Error(ErrorKind::device, std::string("preparing the kernels of warpgroups failed: ") + cudaGetErrorString(error));
}

// A matrix of 16-bit values, read in boxes of 64 columns that lie swizzled in shared memory.
bool encode(void* function, CUtensorMap& map, const void* matrix, std::int64_t rows, std::int64_t cols, int box_rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)}, strides[] = {static_cast<cuuint64_t>(2 * cols)};
  const cuuint32_t box[] = {wg::chunk_cols, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
             &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(matrix), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
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
      for (const int pieces : {1, 4}) {
        const auto* kernel = reinterpret_cast<const void*>(kernel_of(dtype, tokens, pieces));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
        require(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
      }
  for (int way = 0; way < ways; ++way) {
    const Launch launch(1, all_ways[way].splits, shared_, nullptr);
    if (cudaOccupancyMaxActiveClusters(&clusters_[way], kernel_of(Dtype::bf16, 64, all_ways[way].pieces), &launch.config) == cudaSuccess) continue;
    clusters_[way] = 0;
    cudaGetLastError();
  }
}

int WarpgroupGemm::stages_of(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  for (int stages = wg::most_stages; stages >= fewest_stages; --stages)
    if (wg::shared_bytes(static_cast<int>(shape.cols), padded(tokens), all_ways[way].pieces, all_ways[way].splits, stages) <= shared_) return stages;
  return 0;
}

bool WarpgroupGemm::can_run(int way, const GemmShape& shape, std::int64_t tokens) const noexcept {
  if (way < 0 || way >= ways || clusters_[way] == 0 || tokens < 1 || tokens > most_tokens || shape.rows > 1 << 30 || shape.cols > 1 << 20) return false;
  const int splits = all_ways[way].splits;
  return padded(tokens) % splits == 0 && wg::chunks_of(static_cast<int>(shape.cols)) >= splits && stages_of(way, shape, tokens) > 0;
}

Status WarpgroupGemm::run(int way, const GemmShape& shape, const GemmArgs& args, Stream stream) const noexcept {
  const auto [splits, pieces] = all_ways[way];
  const int rows = static_cast<int>(shape.rows), cols = static_cast<int>(shape.cols), tokens = padded(args.tokens), stages = stages_of(way, shape, args.tokens);
  // no more clusters than it takes for the longest to have as few tiles
  const int tiles = wg::tiles_of(rows, shape.end, pieces), turns = (tiles + clusters_[way] - 1) / clusters_[way];
  WarpgroupParams params{.weights = {},
                         .x = {},
                         .bias = static_cast<const std::uint16_t*>(args.bias),
                         .y = args.y,
                         .rows = rows,
                         .cols = cols,
                         .tokens = static_cast<int>(args.tokens),
                         .splits = splits,
                         .clusters = (tiles + turns - 1) / turns,
                         .stages = stages,
                         .end = shape.end,
                         .is_f32 = shape.out == Dtype::f32};
  if (!encode(encode_, params.weights, args.weights, rows, cols, wg::box_rows) || !encode(encode_, params.x, args.x, args.tokens, cols, tokens))
    return refuse(stream, "a product whose matrices the driver cannot describe");
  const Launch launch(params.clusters, splits, wg::shared_bytes(cols, tokens, pieces, splits, stages), cuda_stream(stream));
  return cudaLaunchKernelEx(&launch.config, kernel_of(shape.dtype, tokens, pieces), params) == cudaSuccess ? Status::ok : launched(stream);
}

}  // namespace lmkit::kernels::cuda
