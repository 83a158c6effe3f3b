// SPDX-License-Identifier: Apache-2.0
#include <lmkit/kernels/embedding.hpp>
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

kernels::PackedMatrix WeightLoader::pack(const MatrixView& part) {
  if (part.rows == 0 || part.cols == 0) return {};
  const auto storage = carver_.take<std::byte>(kernels::PackedMatrix::bytes(part.format, part.rows, part.cols));
  return carver_.measures() ? kernels::PackedMatrix() : kernels::PackedMatrix(part, storage.data(), stream_);
}

const float* WeightLoader::vector(const std::string& name, std::int64_t size) {
  const MatrixView view = file_.matrix(name, 1, size);
  if (view.format == WeightFormat::f32 && reinterpret_cast<std::uintptr_t>(view.data) % alignof(float) == 0) {
    return reinterpret_cast<const float*>(mapped(view).data);
  }
  const auto copy = carver_.take<float>(size);
  if (!carver_.measures()) kernels::expand_row(view, 0, copy.data());
  return copy.data();
}

MatrixView WeightLoader::mapped(const MatrixView& matrix) {
  mapped_bytes_ += matrix.rows * matrix.row_bytes;
  return matrix;
}

void fill_rope_table(const RopeConfig& rope, const float* divisors, int positions, float* table, Stream stream) noexcept {
  const int pairs = rope.rotary_dim / 2;
  constexpr int share = 64;  // positions of one task
  stream.parallel_for((positions + share - 1) / share, [&](std::int32_t task, std::int32_t) {
    for (int i = 0; i < pairs; ++i) {
      const double plain = scaled_frequency(rope, std::pow(static_cast<double>(rope.base), -2.0 * i / rope.rotary_dim));
      const double frequency = divisors ? plain / divisors[i] : plain;
      for (int p = task * share; p < std::min((task + 1) * share, positions); ++p) {
        float* const entry = table + (static_cast<std::int64_t>(p) * pairs + i) * 2;
        entry[0] = static_cast<float>(std::cos(p * frequency));
        entry[1] = static_cast<float>(std::sin(p * frequency));
      }
    }
  });
}

}  // namespace lmkit
