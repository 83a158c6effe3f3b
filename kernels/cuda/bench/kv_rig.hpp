// SPDX-License-Identifier: Apache-2.0
//
// KvRig: one layer's pool of pages on the device and a batch of sequences in it, for tests and measurements. Block ids are
// shuffled, every byte that no token wrote is 0xff: NaN as a 16-bit float, as a scale and as a bias.
#pragma once

#include "device.hpp"
#include "kv_reference.hpp"

#include <lmkit/kernels/cuda/cuda_kv.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace lmkit::kernels::cuda {

struct RigShape {
  int query_heads = 8, kv_heads = 2, group_size = 4, group_offset = 0, head_dim = 128;
  bool is_bf16 = true, hadamard = false;
  int block_tokens = 64;
  bool centred = false;
  bool warpgroups = true;
};

inline KvShape kv_shape(const RigShape& s) {
  return {sizeof(KvShape), LMKIT_CUDA, s.is_bf16 ? LMKIT_BF16 : LMKIT_F16, s.query_heads, s.kv_heads, s.group_size, s.group_offset, s.head_dim,
          s.block_tokens};
}

class KvRig {
 public:
  // max_lengths: tokens each sequence may come to hold
  KvRig(const RigShape& shape, std::span<const KvKernels* const> kernels, std::vector<int> max_lengths, int max_tokens, std::uint64_t seed,
        bool shuffle = true)
      : shape(shape), kv(kv_shape(shape), kernels, {shape.hadamard, shape.centred, shape.warpgroups}), lengths(max_lengths.size(), 0) {
    int blocks = 3;  // that belong to nobody
    for (int length : max_lengths) {
      table_stride = std::max<std::int64_t>(table_stride, (length + shape.block_tokens - 1) / shape.block_tokens + 1);
      blocks += (length + shape.block_tokens - 1) / shape.block_tokens;
    }
    std::vector<int> ids(blocks);
    std::iota(ids.begin(), ids.end(), 0);
    if (shuffle) std::ranges::shuffle(ids, std::mt19937_64(seed));
    table.assign(max_lengths.size() * table_stride, -1);
    for (std::size_t s = 0, next = 0; s < max_lengths.size(); ++s)
      for (int b = 0; b < (max_lengths[s] + shape.block_tokens - 1) / shape.block_tokens; ++b) table[s * table_stride + b] = ids[next++];
    block_stride = kv.block_bytes() + layer_offset + 256;
    pool = DeviceArray<std::byte>(static_cast<std::size_t>(blocks) * block_stride);
    pool.fill(0xff);
    device_table = DeviceArray<std::int32_t>(table);
    const KvLimits limits{sizeof(KvLimits), max_tokens, static_cast<int>(max_lengths.size()), 0, 0};
    workspace = DeviceArray<std::byte>(kv.workspace_bytes(limits));
    workspace.fill(0xff);
    device_lengths = DeviceArray<std::int32_t>(lengths.size());
    device_starts = DeviceArray<std::int32_t>(lengths.size() + 1);
    device_sequences = DeviceArray<std::int32_t>(max_tokens);
  }

  // The next step: counts[s] new tokens of each sequence.
  void begin_step(const std::vector<int>& counts) {
    starts.assign(1, 0);
    std::vector<std::int32_t> of_token;
    for (std::size_t s = 0; s < counts.size(); ++s) {
      starts.push_back(starts.back() + counts[s]);
      lengths[s] += counts[s];
      of_token.insert(of_token.end(), counts[s], static_cast<std::int32_t>(s));
    }
    tokens = starts.back();
    device_lengths.upload(lengths);
    device_starts.upload(starts);
    device_sequences.upload(of_token);
  }

  // Before a step: NaN in the blocks that a scheduler has given to others by then, all behind the window but for one.
  void poison_passed(int window) {
    for (std::size_t s = 0; s < lengths.size(); ++s)
      for (int block = 0; block < (lengths[s] - window + 1) / shape.block_tokens - 1; ++block)
        check(cudaMemset(pool.data() + table[s * table_stride + block] * block_stride, 0xff, block_stride));
    check(cudaDeviceSynchronize());
  }

  KvPages pages() const {
    return {sizeof(KvPages), static_cast<int>(lengths.size()), pool.data(), block_stride, layer_offset, device_table.data(), table_stride,
            device_starts.data(), device_lengths.data(), device_sequences.data()};
  }

  int position(int s, int i) const { return lengths[s] - (starts[s + 1] - starts[s]) + i; }
  int kv_head(int head) const { return (head + shape.group_offset) / shape.group_size; }

  // (tokens, head_dim) of one sequence and head as stored; `bytes` is the downloaded pool
  void read(const std::vector<std::byte>& bytes, int s, int head, TokenReader reader, std::vector<float>& k, std::vector<float>& v) const {
    k.resize(static_cast<std::size_t>(lengths[s]) * shape.head_dim);
    v.resize(k.size());
    const auto part = [&](int index) { return bytes.data() + table[s * table_stride + index] * block_stride + layer_offset + head * head_bytes(); };
    for (int t = 0; t < lengths[s]; ++t)
      read_token(part(t / shape.block_tokens), t < shape.block_tokens ? nullptr : part(t / shape.block_tokens - 1), t % shape.block_tokens, reader,
                 k.data() + static_cast<std::size_t>(t) * shape.head_dim, v.data() + static_cast<std::size_t>(t) * shape.head_dim);
  }

  // One token of a head's part of a block; before: that of the block before, or null.
  void read_token(const std::byte* part, const std::byte* before, int slot, TokenReader reader, float* k, float* v) const {
    reader(part + slot / 16 * ((head_bytes() - mean_bytes()) / (shape.block_tokens / 16)), slot % 16, k, v);
    if (!shape.centred || !before) return;
    const auto mean = mean_of(before);
    for (int d = 0; d < shape.head_dim; ++d) k[d] += mean[d];
  }
  // (head_dim) the mean of a head's part of a block
  std::vector<float> mean_of(const std::byte* part) const {
    std::vector<float> mean(shape.head_dim);
    read_mean(part + head_bytes() - mean_bytes(), shape.head_dim, mean.data());
    return mean;
  }
  std::int64_t head_bytes() const { return kv.block_bytes() / shape.kv_heads; }
  std::int64_t mean_bytes() const { return shape.centred ? (2 * shape.head_dim + 63) / 64 * 64 : 0; }

  RigShape shape;
  CudaKv kv;
  std::vector<std::int32_t> lengths, starts, table;
  std::int64_t table_stride = 1, block_stride = 0, layer_offset = 512;
  int tokens = 0;
  DeviceArray<std::byte> pool, workspace;
  DeviceArray<std::int32_t> device_table, device_lengths, device_starts, device_sequences;
};

}  // namespace lmkit::kernels::cuda
