// SPDX-License-Identifier: Apache-2.0
//
// append: rotates q and k by position, optionally spreads q, k and v with a Hadamard transform, and stores k and v.
//
// A task is the new tokens of one block and one key/value head with its query heads: tokens of a block share bytes, so
// no two tasks may write to the same block and head.
//
// Only for files compiled once per instruction set.
#pragma once

#include <lmkit/kernels/hadamard.hpp>
#include <lmkit/kernels/kv_pages.hpp>
#include <lmkit/kernels/kv_plan.hpp>
#include <lmkit/kernels/rope.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lmkit::kernels {

template <class Isa>
class KvAppending {
 public:
  // Encodes a token's k and v (head_dim) into a slot of a head's part of a block.
  using Store = void (*)(std::byte* head, int slot, int head_dim, const float* k, const float* v) noexcept;

  KvAppending(const KvLayer& layer, const KvAppend& args, std::int64_t head_bytes, Store store) noexcept
      : layer_(layer), args_(args), head_bytes_(head_bytes), store_(store) {}

  void run(Stream stream) const noexcept {
    constexpr std::int32_t rows_worth_a_thread = 64;
    const std::int32_t rows = args_.tokens * (layer_.query_heads + 2 * layer_.kv_heads);
    if (rows < rows_worth_a_thread) {
      for (std::int32_t token = 0; token < args_.tokens; ++token)
        for (std::int32_t head = 0; head < layer_.kv_heads; ++head) append_token(token, head);
      return;
    }
    // Step tokens are cut at every 64th; a task takes the blocks that begin in its stretch, so none is taken twice.
    const std::int32_t stretches = (args_.tokens + kv_block_tokens - 1) / kv_block_tokens;
    stream.parallel_for(stretches * layer_.kv_heads, [&](std::int32_t index, std::int32_t) {
      const std::int32_t head = index % layer_.kv_heads, begin = index / layer_.kv_heads * kv_block_tokens;
      const std::int32_t end = least(begin + kv_block_tokens, args_.tokens);
      std::int32_t token = begin;
      while (token < end && !opens_run(token)) ++token;
      for (; token < args_.tokens && (token < end || !opens_run(token)); ++token) append_token(token, head);
    });
  }

 private:
  std::int32_t position_of(std::int32_t token) const noexcept {
    const std::int32_t s = args_.pages.token_sequence[token];
    return token + args_.pages.kv_lengths[s] - args_.pages.query_starts[s + 1];
  }

  // The first new token of its block.
  bool opens_run(std::int32_t token) const noexcept {
    return token == args_.pages.query_starts[args_.pages.token_sequence[token]] || position_of(token) % kv_block_tokens == 0;
  }

  void turn(float* x, std::int32_t position) const noexcept {
    rope_row(x, args_.rope_table + static_cast<std::int64_t>(position) * args_.rotary_dim, args_.rotary_dim, args_.rope_pairs);
    if (layer_.hadamard) hadamard_row<Isa>(x, layer_.head_dim);
  }

  void append_token(std::int32_t token, std::int32_t head) const noexcept {
    const int dim = layer_.head_dim;
    const std::int32_t position = position_of(token);
    for (std::int32_t h = layer_.first_query(head); h < layer_.first_query(head + 1); ++h)
      turn(static_cast<float*>(args_.q) + token * args_.q_stride + h * dim, position);

    alignas(64) float k[kv_max_head_dim], v[kv_max_head_dim];
    std::memcpy(k, static_cast<const float*>(args_.k) + token * args_.kv_stride + head * dim, sizeof(float) * dim);
    std::memcpy(v, static_cast<const float*>(args_.v) + token * args_.kv_stride + head * dim, sizeof(float) * dim);
    turn(k, position);
    if (layer_.hadamard) hadamard_row<Isa>(v, dim);

    const KvPages& pages = args_.pages;
    const std::int32_t block = pages.block_tables[pages.token_sequence[token] * pages.block_table_stride + position / kv_block_tokens];
    std::byte* part = static_cast<std::byte*>(pages.base) + block * pages.block_stride + pages.layer_offset;
    store_(part + head * head_bytes_, position % kv_block_tokens, dim, k, v);
  }

  const KvLayer& layer_;
  const KvAppend& args_;
  std::int64_t head_bytes_;
  Store store_;
};

}  // namespace lmkit::kernels
