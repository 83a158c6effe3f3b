// SPDX-License-Identifier: Apache-2.0
#include <lmkit/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lmkit {
namespace {

int units(int columns) noexcept { return (columns + ffn_unit - 1) / ffn_unit; }

// Llama 3's scaling: long waves are slowed by `factor`, short ones kept, those between blended (Llama 3.1 model card).
// Without an original context all waves are slowed.
double scaled_frequency(const RopeConfig& rope, double frequency) noexcept {
  if (rope.factor == 1.0f) return frequency;
  if (rope.original_context == 0) return frequency / rope.factor;
  const double turns = rope.original_context * frequency / (2 * std::numbers::pi);
  const double span = static_cast<double>(rope.high_frequency_factor) - rope.low_frequency_factor;
  const double keep = span > 0 ? std::clamp((turns - rope.low_frequency_factor) / span, 0.0, 1.0)
                               : (turns >= rope.low_frequency_factor ? 1.0 : 0.0);
  return frequency * (keep + (1 - keep) / rope.factor);
}

}  // namespace

RankShape cut(const ModelConfig& config, const std::function<Shard(Role, std::int64_t)>& shard) {
  const Shard heads = shard(Role::query_heads, config.query_heads);
  const Shard ffn = shard(Role::ffn, units(config.ffn));
  const Shard rows = shard(Role::vocabulary, config.vocabulary);
  const int group = config.query_heads / config.kv_heads;
  RankShape shape;
  shape.query_begin = static_cast<int>(heads.begin);
  shape.query_end = static_cast<int>(heads.end);
  shape.kv_begin = shape.query_begin / group;
  shape.kv_end = (shape.query_end + group - 1) / group;
  shape.group_offset = shape.query_begin % group;
  shape.ffn_begin = std::min(static_cast<int>(ffn.begin) * ffn_unit, config.ffn);
  shape.ffn_end = std::min(static_cast<int>(ffn.end) * ffn_unit, config.ffn);
  shape.vocabulary_begin = static_cast<int>(rows.begin);
  shape.vocabulary_end = static_cast<int>(rows.end);
  return shape;
}

kernels::Linear WeightLoader::linear(std::initializer_list<MatrixView> parts, const std::vector<MatrixView>& biases) {
  const std::span views(parts.begin(), parts.size());
  kernels::Linear linear = device_.pack(views, carver_.take<std::byte>(device_.packed_bytes(views)).data());
  linear.bias = vectors(biases);
  return linear;
}

const void* WeightLoader::vector(const std::string& name, std::int64_t size) {
  const MatrixView view = file_.matrix(name, 1, size);
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(view.data) % alignof(float) == 0;
  if (device_.reads_host_memory() && view.format == WeightFormat::f32 && is_aligned) return mapped(view).data;
  void* const copy = carver_.take<std::byte>(size * size_of(device_.dtype())).data();
  if (copy) device_.put_vector(copy, view);
  return copy;
}

const void* WeightLoader::vectors(const std::vector<MatrixView>& parts) {
  if (parts.empty()) return nullptr;
  std::int64_t bytes = 0;
  for (const MatrixView& part : parts) bytes += part.cols * size_of(device_.dtype());
  std::byte* const copies = carver_.take<std::byte>(bytes).data();
  std::byte* copy = copies;
  for (const MatrixView& part : parts) {
    if (!copies || part.cols == 0) continue;
    device_.put_vector(copy, part);
    copy += part.cols * size_of(device_.dtype());
  }
  return copies;
}

MatrixView WeightLoader::table(const MatrixView& matrix) {
  if (device_.reads_host_memory()) return mapped(matrix);
  const kernels::Linear packed = linear({matrix});
  const kernels::PackedMatrix& rows = packed.parts[0];
  return {rows.format(), matrix.rows, matrix.cols, MatrixView::packed_row_bytes(rows.format(), matrix.cols), rows.data()};
}

kernels::Linear WeightLoader::output(const MatrixView& table, const MatrixView& matrix, std::int64_t begin, std::int64_t end) {
  if (const auto shared = device_.linear_of(table.row_range(begin, end))) return *shared;
  return linear({matrix.row_range(begin, end)});
}

MatrixView WeightLoader::mapped(const MatrixView& matrix) {
  mapped_bytes_ += matrix.rows * matrix.row_bytes;
  return matrix;
}

std::vector<float> rope_table(const ModelFile& model, int positions, Stream stream) {
  const RopeConfig& rope = model.config().rope;
  const auto freqs = model.find("rope_freqs.weight");
  const bool slows = freqs && freqs->format == WeightFormat::f32 && freqs->cols == rope.rotary_dim / 2;
  const float* const divisors = slows ? reinterpret_cast<const float*>(freqs->data) : nullptr;
  std::vector<float> table(static_cast<std::size_t>(std::int64_t{positions} * rope.rotary_dim));
  const int pairs = rope.rotary_dim / 2;
  constexpr int share = 64;  // positions of one task
  stream.parallel_for((positions + share - 1) / share, [&](std::int32_t task, std::int32_t) {
    for (int i = 0; i < pairs; ++i) {
      const double plain = scaled_frequency(rope, std::pow(static_cast<double>(rope.base), -2.0 * i / rope.rotary_dim));
      const double frequency = divisors ? plain / divisors[i] : plain;
      for (int p = task * share; p < std::min((task + 1) * share, positions); ++p) {
        float* const entry = table.data() + (static_cast<std::int64_t>(p) * pairs + i) * 2;
        entry[0] = static_cast<float>(std::cos(p * frequency));
        entry[1] = static_cast<float>(std::sin(p * frequency));
      }
    }
  });
  return table;
}

}  // namespace lmkit
