// SPDX-License-Identifier: Apache-2.0
//
// PlainKv: what abi/kv.h promises, written down plainly: keys and values as the floats they are, sums in double. The yardstick
// of models, where the KV cache's own rounding would hide theirs. On the CPU.
//
// A block: (2, kv_heads, block_tokens, head_dim) floats, keys first.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace lmkit::test {

class PlainKv {
 public:
  explicit PlainKv(const KvShape& shape) : s_(shape) {}

  std::int64_t block_bytes() const noexcept { return std::int64_t{2} * s_.kv_heads * s_.block_tokens * s_.head_dim * 4; }
  std::int64_t workspace_bytes(const KvLimits&) const noexcept { return 0; }

  Status append(const KvAppend& a, Stream) noexcept {
    for (int t = 0; t < a.tokens; ++t) {
      const int position = position_of(a.pages, t);
      auto* const q = static_cast<float*>(a.q) + t * a.q_stride;
      for (int h = 0; h < s_.query_heads; ++h) rotate(a, position, q + h * s_.head_dim);
      for (int h = 0; h < s_.kv_heads; ++h) {
        const std::int64_t from = t * a.kv_stride + h * s_.head_dim;
        float* const key = slot(a.pages, a.pages.token_sequence[t], 0, h, position);
        std::copy_n(static_cast<const float*>(a.k) + from, s_.head_dim, key);
        rotate(a, position, key);
        std::copy_n(static_cast<const float*>(a.v) + from, s_.head_dim, slot(a.pages, a.pages.token_sequence[t], 1, h, position));
      }
    }
    return Status::ok;
  }

  Status attend(const KvAttend& a, Stream) noexcept {
    for (int t = 0; t < a.tokens; ++t)
      for (int h = 0; h < s_.query_heads; ++h)
        attend_one(a, t, h, static_cast<const float*>(a.q) + t * a.q_stride + h * s_.head_dim,
                   static_cast<float*>(a.out) + t * a.out_stride + h * s_.head_dim);
    return Status::ok;
  }

  Status copy_blocks(const KvCopy& c, Stream) noexcept {
    std::byte* const base = static_cast<std::byte*>(c.base) + c.layer_offset;
    for (int i = 0; i < c.count; ++i) std::copy_n(base + c.source[i] * c.block_stride, block_bytes(), base + c.target[i] * c.block_stride);
    return Status::ok;
  }

 private:
  static int position_of(const KvPages& p, int t) noexcept {
    const int sequence = p.token_sequence[t];
    return p.kv_lengths[sequence] - p.query_starts[sequence + 1] + t;
  }

  float* slot(const KvPages& p, int sequence, int is_value, int head, int position) const noexcept {
    const std::int64_t block = p.block_tables[sequence * p.block_table_stride + position / s_.block_tokens];
    auto* const values = reinterpret_cast<float*>(static_cast<std::byte*>(p.base) + block * p.block_stride + p.layer_offset);
    return values + ((std::int64_t{is_value} * s_.kv_heads + head) * s_.block_tokens + position % s_.block_tokens) * s_.head_dim;
  }

  static void rotate(const KvAppend& a, int position, float* head) noexcept {
    if (a.rope_pairs == LMKIT_ROPE_NONE) return;
    const bool adjacent = a.rope_pairs == LMKIT_ROPE_ADJACENT;
    for (int i = 0; i < a.rotary_dim / 2; ++i) {
      const float* const turn = a.rope_table + (std::int64_t{position} * (a.rotary_dim / 2) + i) * 2;
      float &x = head[adjacent ? 2 * i : i], &y = head[adjacent ? 2 * i + 1 : i + a.rotary_dim / 2];
      const float rotated = x * turn[0] - y * turn[1];
      y = x * turn[1] + y * turn[0];
      x = rotated;
    }
  }

  void attend_one(const KvAttend& a, int t, int head, const float* q, float* out) const {
    const int sequence = a.pages.token_sequence[t], kv_head = (head + s_.group_offset) / s_.group_size, last = position_of(a.pages, t);
    const int first = a.window > 0 ? std::max(0, last - a.window + 1) : 0;
    std::vector<double> scores, sums(static_cast<std::size_t>(s_.head_dim));
    for (int p = first; p <= last; ++p) {
      const float* const key = slot(a.pages, sequence, 0, kv_head, p);
      double score = 0;
      for (int d = 0; d < s_.head_dim; ++d) score += double{q[d]} * key[d];
      scores.push_back(score * a.scale);
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (int p = first; p <= last; ++p) {
      const double weight = std::exp(scores[static_cast<std::size_t>(p - first)] - top);
      const float* const value = slot(a.pages, sequence, 1, kv_head, p);
      for (int d = 0; d < s_.head_dim; ++d) sums[static_cast<std::size_t>(d)] += weight * value[d];
      total += weight;
    }
    for (int d = 0; d < s_.head_dim; ++d) out[d] = static_cast<float>(sums[static_cast<std::size_t>(d)] / total);
  }

  KvShape s_;
};

static_assert(KvBackend<PlainKv>);

}  // namespace lmkit::test
