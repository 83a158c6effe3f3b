// SPDX-License-Identifier: Apache-2.0
//
// CpuKv: a KvBackend for the CPU around a table of kernels. KvF16 and the codec plugins are made of it.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/kernels/kv.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

namespace lmkit::kernels {

class CpuKv {
 public:
  // Throws Error if the shape is not one of the CPU kernels'.
  CpuKv(const KvShape& shape, const KvKernels& kernels, bool hadamard = false);

  std::int64_t block_bytes() const noexcept { return block_bytes_; }
  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept { return kernels_->workspace_bytes(layer_, limits); }

  Status append(const KvAppend& args, Stream stream) noexcept {
    kernels_->append(layer_, args, stream);
    return Status::ok;
  }

  Status attend(const KvAttend& args, Stream stream) noexcept {
    kernels_->attend(layer_, args, stream);
    return Status::ok;
  }

  Status copy_blocks(const KvCopy& args, Stream stream) noexcept {
    std::byte* base = static_cast<std::byte*>(args.base) + args.layer_offset;
    stream.parallel_for(args.count, [&](std::int32_t i, std::int32_t) {
      std::memcpy(base + args.target[i] * args.block_stride, base + args.source[i] * args.block_stride, static_cast<std::size_t>(block_bytes_));
    });
    return Status::ok;
  }

 private:
  const KvKernels* kernels_;
  KvLayer layer_;
  std::int64_t block_bytes_;
};

inline CpuKv::CpuKv(const KvShape& shape, const KvKernels& kernels, bool hadamard)
    : kernels_(&kernels),
      layer_{shape.query_heads, shape.kv_heads, shape.group_size, shape.group_offset, shape.head_dim, hadamard},
      block_bytes_(0) {
  using std::to_string;
  const auto require = [](bool holds, std::string found, std::string expected) {
    if (!holds) throw Error(ErrorKind::plugin, std::move(found), std::move(expected));
  };
  require(shape.device == LMKIT_CPU, "a KV cache on device " + to_string(shape.device), "the CPU");
  require(shape.dtype == LMKIT_F32, "activations of dtype " + to_string(shape.dtype), "f32 on the CPU");
  require(shape.block_tokens == kv_block_tokens, "blocks of " + to_string(shape.block_tokens) + " tokens", "blocks of 64");
  require(shape.head_dim >= 8 && shape.head_dim <= kv_max_head_dim && shape.head_dim % 8 == 0, "head_dim " + to_string(shape.head_dim),
          "a multiple of 8 up to " + to_string(kv_max_head_dim));
  require(shape.query_heads >= 1 && shape.kv_heads >= 1 && shape.group_size >= 1 && shape.group_offset >= 0 &&
              shape.group_offset < shape.group_size &&
              (shape.query_heads - 1 + std::int64_t{shape.group_offset}) / shape.group_size < shape.kv_heads,
          to_string(shape.query_heads) + " query heads in groups of " + to_string(shape.group_size) + " from offset " +
              to_string(shape.group_offset) + " over " + to_string(shape.kv_heads) + " key/value heads",
          "a key/value head for every query head");
  block_bytes_ = layer_.kv_heads * kernels.head_bytes(layer_.head_dim);
}

}  // namespace lmkit::kernels
