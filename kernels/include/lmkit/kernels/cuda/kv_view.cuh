// SPDX-License-Identifier: Apache-2.0
//
// What every KV kernel is given by value: the layer's shape, where pages are, which query heads read a key/value head.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/base/host_device.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels::cuda {

struct KvView {
  std::int32_t query_heads, kv_heads, group_size, group_offset, block_tokens;
  bool is_bf16;   // activations; otherwise fp16
  bool hadamard;  // q, k and v are rotated before they are stored, attend's result back
  bool centred;   // keys are differences from the mean key of the block before
  std::int64_t head_bytes;  // of a head's part of a block: tiles, then the mean

  std::int32_t sequences;
  std::byte* pages;  // base + layer_offset
  std::int64_t block_stride;
  const std::int32_t* block_tables;
  std::int64_t block_table_stride;
  const std::int32_t* query_starts;
  const std::int32_t* kv_lengths;
  const std::int32_t* token_sequence;

  LMKIT_HD int first_query(int kv_head) const noexcept {
    const int first = kv_head * group_size - group_offset;
    return first < 0 ? 0 : first > query_heads ? query_heads : first;
  }
  LMKIT_HD std::byte* tile(int block, int kv_head, int tile_in_block, int tile_bytes) const noexcept {
    return pages + block * block_stride + kv_head * head_bytes + std::int64_t{tile_in_block} * tile_bytes;
  }
  LMKIT_HD std::byte* mean(int block, int kv_head, int mean_bytes) const noexcept {
    return pages + block * block_stride + (kv_head + 1) * head_bytes - mean_bytes;
  }
  // The index-th block of a sequence.
  LMKIT_HD int block(int sequence, int index) const noexcept { return block_tables[sequence * block_table_stride + index]; }
  LMKIT_HD int new_tokens(int sequence) const noexcept { return query_starts[sequence + 1] - query_starts[sequence]; }
};

}  // namespace lmkit::kernels::cuda
