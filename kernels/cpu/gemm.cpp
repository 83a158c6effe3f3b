// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/embedding.hpp>
#include <lmkit/kernels/gemm.hpp>

#include "gemm_kernels.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

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

void pack_tile(const MatrixView& source, std::int64_t first, std::byte* out) noexcept {
  const int count = static_cast<int>(std::min<std::int64_t>(gemm_tile_rows, source.rows - first));
  const WeightBlock block = block_of(source.format);
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

const GemmKernels& kernels_in_use() noexcept {
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
  return ceil_div(max_tokens, gemm_panel_tokens) * ceil_div(max_cols, 32) * static_cast<std::int64_t>(sizeof(ActivationBlock));
}

void gemm(std::span<const PackedMatrix> parts, const float* x, std::int64_t x_stride, std::int64_t tokens, float* y,
          std::int64_t y_stride, std::byte* workspace, Stream stream) noexcept {
  if (parts.empty() || tokens == 0) return;
  const GemmKernels& kernels = kernels_in_use();
  const std::int64_t cols = parts.front().cols(), blocks = cols / 32;
  const std::int64_t panels = ceil_div(tokens, gemm_panel_tokens);
  auto* activations = reinterpret_cast<ActivationBlock*>(workspace);

  if (std::ranges::any_of(parts, [](const PackedMatrix& part) { return is_quantised(part.format()); }))
    stream.parallel_for(static_cast<std::int32_t>(panels), [&](std::int32_t panel, int) {
      const std::int64_t first = std::int64_t{panel} * gemm_panel_tokens;
      kernels.quantise(x + first * x_stride, x_stride, std::min<std::int64_t>(gemm_panel_tokens, tokens - first), blocks,
                       activations + panel * blocks);
    });

  std::int64_t tiles = 0;
  for (const PackedMatrix& part : parts) {
    assert(part.cols() == cols);
    tiles += ceil_div(part.rows(), gemm_tile_rows);
  }
  const std::int64_t chunks = std::min<std::int64_t>(tiles, 4 * stream.workers());
  stream.parallel_for(static_cast<std::int32_t>(chunks), [&](std::int32_t chunk, int) {
    for_parts(parts, chunk * tiles / chunks, (chunk + 1) * tiles / chunks,
              [&](const PackedMatrix& part, std::int64_t first, std::int64_t count, std::int64_t first_row) {
                const std::int64_t tile_bytes = gemm_tile_bytes(part.format(), cols);
                kernels.multiply({.format = part.format(),
                                  .weights = part.data() + first * tile_bytes,
                                  .tiles = count,
                                  .rows = part.rows() - first * gemm_tile_rows,
                                  .cols = cols,
                                  .panels = activations,
                                  .x = x,
                                  .x_stride = x_stride,
                                  .tokens = tokens,
                                  .y = y + first_row + first * gemm_tile_rows,
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
