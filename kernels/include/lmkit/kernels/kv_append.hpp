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
namespace {

// What appending needs to know of a kind of pages.
struct KvPageWriter {
  std::int64_t head_bytes;
  std::int64_t centre_offset;  // of the mean key in a head's part; negative: keys are not centred
  // Encodes a token's k and v (head_dim) into a slot of a head's part of a block.
  void (*store)(std::byte* head, int slot, int head_dim, const float* k, const float* v) noexcept;

  constexpr bool centred() const noexcept { return centre_offset >= 0; }

  template <class Isa, class Pages>
  static KvPageWriter of(int head_dim) noexcept {
    std::int64_t centre_offset = -1;
    if constexpr (Pages::centred) centre_offset = Pages::centre_offset(head_dim);
    return {Pages::head_bytes(head_dim), centre_offset, &Pages::template store<Isa>};
  }
};

template <class Isa>
class KvAppending {
 public:
  KvAppending(const KvLayer& layer, const KvAppend& args, const KvPageWriter& pages) noexcept : layer_(layer), args_(args), pages_(pages) {}

  void run(Stream stream) const noexcept {
    constexpr std::int32_t rows_worth_a_thread = 64;
    const std::int32_t rows = args_.tokens * (layer_.query_heads + 2 * layer_.kv_heads);
    const Stream* threads = rows < rows_worth_a_thread ? nullptr : &stream;
    // A block's keys need the whole mean of the block before.
    if (pages_.centred()) for_each_token(threads, [this](std::int32_t token, std::int32_t head) { add_to_mean(token, head); });
    for_each_token(threads, [this](std::int32_t token, std::int32_t head) { append_token(token, head); });
  }

 private:
  // body(token, head) for all, in order within a block and head; on the calling thread if threads is null.
  template <class Body>
  void for_each_token(const Stream* threads, Body&& body) const noexcept {
    if (!threads) {
      for (std::int32_t token = 0; token < args_.tokens; ++token)
        for (std::int32_t head = 0; head < layer_.kv_heads; ++head) body(token, head);
      return;
    }
    // Step tokens are cut at every 64th; a task takes the blocks that begin in its stretch, so none is taken twice.
    const std::int32_t stretches = (args_.tokens + kv_block_tokens - 1) / kv_block_tokens;
    threads->parallel_for(stretches * layer_.kv_heads, [&](std::int32_t index, std::int32_t) {
      const std::int32_t head = index % layer_.kv_heads, begin = index / layer_.kv_heads * kv_block_tokens;
      const std::int32_t end = least(begin + kv_block_tokens, args_.tokens);
      std::int32_t token = begin;
      while (token < end && !opens_run(token)) ++token;
      for (; token < args_.tokens && (token < end || !opens_run(token)); ++token) body(token, head);
    });
  }

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

  // The key as it is stored, before it is centred. to: (head_dim)
  void turned_key(std::int32_t token, std::int32_t head, float* to) const noexcept {
    std::memcpy(to, static_cast<const float*>(args_.k) + token * args_.kv_stride + head * layer_.head_dim, sizeof(float) * layer_.head_dim);
    turn(to, position_of(token));
  }

  // The part of `head` in the `index`-th block of the token's sequence.
  std::byte* part_of(std::int32_t token, std::int32_t head, std::int32_t index) const noexcept {
    const KvPages& pages = args_.pages;
    const std::int32_t block = pages.block_tables[pages.token_sequence[token] * pages.block_table_stride + index];
    return static_cast<std::byte*>(pages.base) + block * pages.block_stride + pages.layer_offset + head * pages_.head_bytes;
  }

  void add_to_mean(std::int32_t token, std::int32_t head) const noexcept {
    alignas(64) float k[kv_max_head_dim];
    turned_key(token, head, k);
    const std::int32_t position = position_of(token);
    std::byte* strip = part_of(token, head, position / kv_block_tokens) + pages_.centre_offset;
    add_to_centre<Isa>(strip, position % kv_block_tokens, k, layer_.head_dim);
  }

  void append_token(std::int32_t token, std::int32_t head) const noexcept {
    const int dim = layer_.head_dim;
    const std::int32_t position = position_of(token);
    for (std::int32_t h = layer_.first_query(head); h < layer_.first_query(head + 1); ++h)
      turn(static_cast<float*>(args_.q) + token * args_.q_stride + h * dim, position);

    alignas(64) float k[kv_max_head_dim], v[kv_max_head_dim];
    turned_key(token, head, k);
    std::memcpy(v, static_cast<const float*>(args_.v) + token * args_.kv_stride + head * dim, sizeof(float) * dim);
    if (layer_.hadamard) hadamard_row<Isa>(v, dim);

    const std::int32_t index = position / kv_block_tokens;
    if (pages_.centred() && index > 0) subtract_centre<Isa>(part_of(token, head, index - 1) + pages_.centre_offset, k, dim);
    pages_.store(part_of(token, head, index), position % kv_block_tokens, dim, k, v);
  }

  const KvLayer& layer_;
  const KvAppend& args_;
  KvPageWriter pages_;
};

}  // namespace
}  // namespace lmkit::kernels
