// SPDX-License-Identifier: Apache-2.0
#include "bench.hpp"

#include "commands.hpp"

#include <lmkit/base/error.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace lmkit::cli {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::int64_t weight_bytes(const ModelFile& model, const std::string& name, bool on_gpu) {
  const auto matrix = model.find(name);
  if (!matrix) return 0;
  return matrix->rows * (on_gpu ? matrix->cols * 2 : MatrixView::packed_row_bytes(matrix->format, matrix->cols));
}

std::int64_t layer_weight_bytes(const ModelFile& model, int layer, bool on_gpu) {
  std::int64_t bytes = 0;
  for (const char* part : {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"})
    bytes += weight_bytes(model, fmt::format("blk.{}.{}.weight", layer, part), on_gpu);
  return bytes;
}

int bench_command(const Arguments& arguments) {
  if (arguments.operands() == std::vector<std::string>{"engine"}) return bench_engine(arguments);
  if (arguments.operands() == std::vector<std::string>{"kernel"}) return bench_kernel(arguments);
  throw Error(ErrorKind::usage, "lmkit bench needs to know what to measure", "engine or kernel", "lmkit bench engine");
}

}  // namespace lmkit::cli
