// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/gemm.hpp>

#include "gemm_kernels.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include <unistd.h>

namespace lmkit::kernels {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

// One tile of `count` <= 16 rows; the rest of the tile is zeros. `word` bytes of a row stay together.
void interleave(const std::byte* rows, std::int64_t row_bytes, int count, std::int64_t words, std::size_t word, std::byte* out) noexcept {
  for (std::int64_t w = 0; w < words; ++w)
    for (int r = 0; r < gemm_tile_rows; ++r, out += word)
      if (r < count)
        std::memcpy(out, rows + r * row_bytes + w * static_cast<std::int64_t>(word), word);
      else
        std::memset(out, 0, word);
}

// The same for 16-bit values two columns at a time; columns that are not there become zeros.
void interleave_pairs(const MatrixView& source, std::int64_t first, int count, std::byte* out) noexcept {
  std::memset(out, 0, static_cast<std::size_t>(gemm_tile_bytes(source.format, source.cols)));
  for (std::int64_t c = 0; c < source.cols; ++c)
    for (int r = 0; r < count; ++r) std::memcpy(out + (c / 2 * gemm_tile_rows + r) * 4 + c % 2 * 2, source.row(first + r) + 2 * c, 2);
}

void pack_tile(const MatrixView& source, std::int64_t first, std::byte* out) noexcept {
  const int count = static_cast<int>(std::min<std::int64_t>(gemm_tile_rows, source.rows - first));
  const WeightBlock block = block_of(source.format);
  if (source.format == WeightFormat::bf16) {
    interleave_pairs(source, first, count, out);
    return;
  }
  if (!is_quantised(source.format)) {
    interleave(source.row(first), source.row_bytes, count, source.cols, static_cast<std::size_t>(block.bytes), out);
    return;
  }
  const int scales = source.format == WeightFormat::q4_1 ? 2 : 1;
  const int groups = source.format == WeightFormat::q8_0 ? 8 : 4;
  for (std::int64_t b = 0; b < source.cols / block.values; ++b) {
    const std::byte* in = source.row(first) + b * block.bytes;
    interleave(in, source.row_bytes, count, scales, 2, out);
    out += scales * 2 * gemm_tile_rows;
    interleave(in + 2 * scales, source.row_bytes, count, groups, 4, out);
    if (source.format == WeightFormat::q8_0)
      for (int i = 0; i < groups * 4 * gemm_tile_rows; ++i) out[i] ^= std::byte{0x80};
    out += groups * 4 * gemm_tile_rows;
  }
}

// Tiles of all parts are numbered through; calls body(part, first tile, tiles, first output row) for [begin, end).
template <class Body>
void for_parts(std::span<const PackedMatrix> parts, std::int64_t begin, std::int64_t end, Body body) noexcept {
  std::int64_t first_tile = 0, first_row = 0;
  for (const PackedMatrix& part : parts) {
    const std::int64_t tiles = ceil_div(part.rows(), gemm_tile_rows);
    const std::int64_t from = std::max(begin - first_tile, std::int64_t{0}), to = std::min(end - first_tile, tiles);
    if (from < to) body(part, from, to - from, first_row);
    first_tile += tiles;
    first_row += part.rows();
  }
}

// Bytes of activations that stay in a core's second cache while weights pass: half a MiB, or a quarter of a cache below 1 MiB. (On a
// Zen 3 with 512 KiB, a quarter is 8 % faster than all of it for SmolLM2-135M and 512 tokens.) Weights are read again for each
// chunk, so those that are not quantised keep the larger ones: F32 would be bound by that.
std::int64_t l2_share(bool quantised) noexcept {
  static const std::int64_t cache = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where the system does not know
  return quantised && cache > 0 && cache < 1 << 20 ? cache / 4 : 512 << 10;
}

bool any_quantised(std::span<const PackedMatrix> parts) noexcept {
  return std::ranges::any_of(parts, [](const PackedMatrix& part) { return is_quantised(part.format()); });
}

// How a call is cut into tasks: chunks of tokens whose activations stay in a worker's L2, times chunks of tiles.
struct Cut {
  std::int64_t tokens, tiles;
  std::int64_t chunk_tokens, tile_chunks;
  std::int64_t token_chunks() const noexcept { return ceil_div(tokens, chunk_tokens); }
};

Cut cut_of(std::span<const PackedMatrix> parts, std::int64_t tokens, int workers) noexcept {
  constexpr std::int64_t least_work = 32 << 10;  // bytes of weights times tokens that outweigh a fork and join (1 us)
  const std::int64_t cols = parts.front().cols();
  const std::int64_t panel_bytes = std::max(ceil_div(cols, 32) * static_cast<std::int64_t>(sizeof(ActivationBlock)), 16 * 4 * cols);
  Cut cut{tokens, 0, std::max<std::int64_t>(l2_share(any_quantised(parts)) / panel_bytes, 1) * gemm_panel_tokens, 0};
  std::int64_t bytes = 0;
  for (const PackedMatrix& part : parts) {
    assert(part.cols() == cols);
    const std::int64_t tiles = ceil_div(part.rows(), gemm_tile_rows);
    cut.tiles += tiles;
    bytes += tiles * gemm_tile_bytes(part.format(), cols);
  }
  // Four chunks a worker even out what else runs on the machine; a whole number each, where there are enough.
  const std::int64_t most = std::min<std::int64_t>(4 * workers, cut.tiles);
  cut.tile_chunks = std::clamp<std::int64_t>(bytes * std::min(tokens, cut.chunk_tokens) / least_work, 1, most);
  if (cut.tile_chunks > workers) cut.tile_chunks -= cut.tile_chunks % workers;
  return cut;
}

// body(panel, its first token, how many) for each panel, in parallel
template <class Body>
void for_panels(std::int64_t tokens, Stream stream, Body body) noexcept {
  stream.parallel_for(static_cast<std::int32_t>(ceil_div(tokens, gemm_panel_tokens)), [&](std::int32_t panel, int) {
    const std::int64_t first = std::int64_t{panel} * gemm_panel_tokens;
    body(panel, first, std::min<std::int64_t>(gemm_panel_tokens, tokens - first));
  });
}

const GemmKernels& kernels_in_use() noexcept {
#if defined(__x86_64__)
  if (cpu_isa() == CpuIsa::amx) return gemm_kernels<isa::amx>();
#endif
  return visit_isa(cpu_isa(), [](auto isa) -> const GemmKernels& { return gemm_kernels<decltype(isa)>(); });
}

}  // namespace

std::int64_t PackedMatrix::bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) noexcept {
  return ceil_div(rows, tile_rows) * gemm_tile_bytes(format, cols);
}

PackedMatrix::PackedMatrix(const MatrixView& source, std::byte* storage, Stream stream) noexcept
    : format_(source.format), rows_(source.rows), cols_(source.cols), data_(storage) {
  const std::int64_t tile_bytes = gemm_tile_bytes(format_, cols_);
  stream.parallel_for(static_cast<std::int32_t>(ceil_div(rows_, tile_rows)),
                      [&](std::int32_t tile, int) { pack_tile(source, std::int64_t{tile} * tile_rows, storage + tile * tile_bytes); });
}

std::int64_t gemm_workspace_bytes(std::int64_t max_tokens, std::int64_t max_cols) noexcept {
  const std::size_t block = sizeof(ActivationBlock) + (best_cpu_isa() >= CpuIsa::amx ? sizeof(SplitBlock) : 0);
  return ceil_div(max_tokens, gemm_panel_tokens) * ceil_div(max_cols, 32) * static_cast<std::int64_t>(block);
}

void gemm(std::span<const PackedMatrix> parts, const float* x, std::int64_t x_stride, std::int64_t tokens, float* y,
          std::int64_t y_stride, std::byte* workspace, Stream stream) noexcept {
  if (parts.empty() || tokens == 0) return;
  const GemmKernels& kernels = kernels_in_use();
  const std::int64_t cols = parts.front().cols(), blocks = ceil_div(cols, 32);
  auto* activations = reinterpret_cast<ActivationBlock*>(workspace);
  auto* split = reinterpret_cast<SplitBlock*>(activations + ceil_div(tokens, gemm_panel_tokens) * blocks);
  if (any_quantised(parts))
    for_panels(tokens, stream, [&](std::int64_t panel, std::int64_t first, std::int64_t count) {
      kernels.quantise(x + first * x_stride, x_stride, count, blocks, activations + panel * blocks);
    });
  if (kernels.split && std::ranges::find(parts, WeightFormat::bf16, &PackedMatrix::format) != parts.end())
    for_panels(tokens, stream, [&](std::int64_t panel, std::int64_t first, std::int64_t count) {
      kernels.split(x + first * x_stride, x_stride, count, cols, split + panel * blocks);
    });

  const Cut cut = cut_of(parts, tokens, stream.workers());
  stream.parallel_for(static_cast<std::int32_t>(cut.token_chunks() * cut.tile_chunks), [&](std::int32_t index, int) {
    const std::int64_t token = index / cut.tile_chunks * cut.chunk_tokens, chunk = index % cut.tile_chunks;
    for_parts(parts, chunk * cut.tiles / cut.tile_chunks, (chunk + 1) * cut.tiles / cut.tile_chunks,
              [&](const PackedMatrix& part, std::int64_t tile, std::int64_t tiles, std::int64_t first_row) {
                kernels.multiply({.format = part.format(),
                                  .weights = part.data() + tile * gemm_tile_bytes(part.format(), cols),
                                  .tiles = tiles,
                                  .rows = part.rows() - tile * gemm_tile_rows,
                                  .cols = cols,
                                  .panels = activations + token / gemm_panel_tokens * blocks,
                                  .split = split + token / gemm_panel_tokens * blocks,
                                  .x = x + token * x_stride,
                                  .x_stride = x_stride,
                                  .tokens = std::min(cut.chunk_tokens, tokens - token),
                                  .y = y + token * y_stride + first_row + tile * gemm_tile_rows,
                                  .y_stride = y_stride});
              });
  });
}

void gemm_reference(const MatrixView& weights, const float* x, std::int64_t x_stride, std::int64_t tokens, float* y,
                    std::int64_t y_stride) noexcept {
  std::vector<float> row(static_cast<std::size_t>(weights.cols));
  for (std::int64_t r = 0; r < weights.rows; ++r) {
    expand_row(weights, r, row.data());
    for (std::int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (std::int64_t c = 0; c < weights.cols; ++c) sum += double{row[static_cast<std::size_t>(c)]} * double{x[t * x_stride + c]};
      y[t * y_stride + r] = static_cast<float>(sum);
    }
  }
}

}  // namespace lmkit::kernels
