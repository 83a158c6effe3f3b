// SPDX-License-Identifier: Apache-2.0
//
// CudaKv: a KvBackend on a GPU around a table of kernels, as CpuKv is on the CPU. A codec's table is made by kv_kernels.cuh
// in a .cu file; this header is plain C++, so the file that writes a plugin's entry need not be compiled by nvcc.
//
//     kv_tile.cuh      what a page holds            kv_append.cuh   RoPE, rotation, encode, page write
//     kv_fragment.cuh  pages to tensor cores        kv_decode.cuh   one new token a sequence; kv_split, kv_line, kv_merge
//     kv_view.cuh      a launch's pages and heads   kv_prefill.cuh  chunks of new tokens
//     kv_centre.cuh    keys without their mean     kv_prefill_wgmma.cuh  the same for sm_90a; kv_prefill_feed
//
// Promise: results do not depend on timing, and a replayed graph gives the bits of an eager run. Pages do not depend on how a
// prompt is cut into chunks, nor on the batch. Slots that hold no token may contain anything, NaN included. Activations are fp16 or bf16, rows 8-byte aligned.
//
// On sm_90 append and attend start while launches before them end, and read the step's arrays (query_starts, kv_lengths,
// block_tables, token_sequence) and the rope table before they wait; attend also earlier tokens of sequences that have one new token. These must
// have been written before the step's first launch, by a copy or by a kernel of an earlier step.
//
// append clears the counters in the workspace by which attend's blocks know who is last (kv_split.cuh), and attend leaves them cleared. So both
// are given the same workspace, and nobody else writes to it.
#pragma once

#include <lmkit/base/error.hpp>
#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/kernels/cuda/kv_split.cuh>
#include <lmkit/kernels/cuda/kv_view.cuh>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace lmkit::kernels::cuda {

// What decode attention needs of the workspace: slots, then counters (kv_split.cuh).
struct DecodeWorkspace {
  std::int32_t all_workers;  // warps of its grid
  std::int32_t warps;        // of a block
  std::int32_t query_tiles;  // items of one key/value head
  std::int32_t columns;      // queries of an item
  std::int64_t counters_at;  // bytes
  bool overlap;              // a launch may start while the one before ends
  std::int32_t warpgroups;   // blocks of kv_prefill_wgmma.cuh's grid, a multiprocessor each; 0: prefill runs on kv_prefill.cuh
};

// The launches of one codec at one head_dim. Functions return a cudaError_t; 0 is success.
struct KvKernels {
  int head_dim;
  int dtype;       // of the activations; -1: fp16 and bf16
  int tile_bytes;  // 16 tokens of one key/value head
  int mean_bytes;  // of a head's part of a block where keys are centred; 0: they cannot be
  // Decode's warps on the current device for groups of this size, and how many queries an item has. [load-time]
  int (*prepare)(int group_size, DecodeWorkspace& decode) noexcept;
  int (*append)(const KvView& view, const DecodeWorkspace& decode, const KvAppend& args, void* stream) noexcept;
  int (*attend)(const KvView& view, const DecodeWorkspace& decode, const KvAttend& args, void* stream) noexcept;
  int (*copy)(const KvCopy& args, std::int64_t bytes, void* stream) noexcept;
  const char* (*describe)(int error) noexcept;
};

class CudaKv {
 public:
  struct Options {
    bool hadamard = false;  // q, k and v are rotated before they are stored
    bool centred = false;   // keys are stored as differences from the mean key of the block before
    bool warpgroups = true;  // prefill by sm_90a's products where device, build and codec have them
  };

  // Serves the current device. Throws Error if the shape is not among the kernels', or the device cannot run them.
  CudaKv(const KvShape& shape, std::span<const KvKernels* const> kernels, Options options);
  CudaKv(const KvShape& shape, std::span<const KvKernels* const> kernels) : CudaKv(shape, kernels, Options{}) {}

  std::int64_t block_bytes() const noexcept { return view_.kv_heads * view_.head_bytes; }

  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept {
    return decode_.counters_at + std::int64_t{limits.max_sequences} * view_.kv_heads * decode_.query_tiles * decode_.warps * 4;
  }

  Status append(const KvAppend& args, Stream stream) noexcept {
    if (args.tokens == 0) return Status::ok;
    return outcome(kernels_->append(view(args.pages), decode_, args, stream.handle), stream);
  }

  Status attend(const KvAttend& args, Stream stream) noexcept {
    if (args.tokens == 0) return Status::ok;
    return outcome(kernels_->attend(view(args.pages), decode_, args, stream.handle), stream);
  }

  Status copy_blocks(const KvCopy& args, Stream stream) noexcept {
    if (args.count == 0) return Status::ok;
    return outcome(kernels_->copy(args, block_bytes(), stream.handle), stream);
  }

 private:
  KvView view(const KvPages& pages) const noexcept {
    KvView view = view_;
    view.sequences = pages.sequences;
    view.pages = static_cast<std::byte*>(pages.base) + pages.layer_offset;
    view.block_stride = pages.block_stride;
    view.block_tables = pages.block_tables;
    view.block_table_stride = pages.block_table_stride;
    view.query_starts = pages.query_starts;
    view.kv_lengths = pages.kv_lengths;
    view.token_sequence = pages.token_sequence;
    return view;
  }

  Status outcome(int error, const Stream& stream) const noexcept {
    if (error == 0) return Status::ok;
    if (stream.host) stream.host->fail(kernels_->describe(error));
    return Status::device_error;
  }

  const KvKernels* kernels_ = nullptr;
  KvView view_{};
  DecodeWorkspace decode_{};
};

inline CudaKv::CudaKv(const KvShape& shape, std::span<const KvKernels* const> kernels, Options options) {
  using std::to_string;
  const auto require = [](bool holds, std::string found, std::string expected) {
    if (!holds) throw Error(ErrorKind::plugin, std::move(found), std::move(expected));
  };
  require(shape.device == LMKIT_CUDA, "a KV cache on device " + to_string(shape.device), "CUDA");
  require(shape.dtype == LMKIT_F16 || shape.dtype == LMKIT_BF16, "activations of dtype " + to_string(shape.dtype), "fp16 or bf16 on CUDA");
  require(shape.block_tokens > 0 && shape.block_tokens % 64 == 0, "blocks of " + to_string(shape.block_tokens) + " tokens", "a multiple of 64");
  require(shape.group_size >= 1 && shape.group_size <= 16, "groups of " + to_string(shape.group_size) + " query heads", "1 to 16");
  require(shape.query_heads >= 1 && shape.kv_heads >= 1 && shape.group_offset >= 0 && shape.group_offset < shape.group_size &&
              (shape.query_heads - 1 + std::int64_t{shape.group_offset}) / shape.group_size < shape.kv_heads,
          to_string(shape.query_heads) + " query heads in groups of " + to_string(shape.group_size) + " from offset " +
              to_string(shape.group_offset) + " over " + to_string(shape.kv_heads) + " key/value heads",
          "a key/value head for every query head");
  std::string dims;
  for (const KvKernels* candidate : kernels) {
    if (candidate->dtype >= 0 && candidate->dtype != shape.dtype) continue;
    if (candidate->head_dim == shape.head_dim) kernels_ = candidate;
    dims += (dims.empty() ? "" : ", ") + to_string(candidate->head_dim);
  }
  require(kernels_ != nullptr, "head_dim " + to_string(shape.head_dim), dims);
  require(!options.centred || kernels_->mean_bytes > 0, "centred keys", "keys as they are for this codec");
  if (const int error = kernels_->prepare(shape.group_size, decode_))
    throw Error(ErrorKind::device, std::string("the GPU cannot run this build's kernels: ") + kernels_->describe(error),
                "a driver and a GPU that the build was made for", "--device cpu, or a build with this GPU in LMKIT_CUDA_ARCHS");
  if (!options.warpgroups) decode_.warpgroups = 0;
  if (shape.group_size < decode_.columns) decode_.columns = shape.group_size;
  decode_.counters_at = PartialSlots{decode_.all_workers, decode_.warps}.count() * decode_.columns * part_row(shape.head_dim) * 4;
  view_.query_heads = shape.query_heads;
  view_.kv_heads = shape.kv_heads;
  view_.group_size = shape.group_size;
  view_.group_offset = shape.group_offset;
  view_.block_tokens = shape.block_tokens;
  view_.is_bf16 = shape.dtype == LMKIT_BF16;
  view_.hadamard = options.hadamard;
  view_.centred = options.centred;
  view_.head_bytes = std::int64_t{shape.block_tokens / 16} * kernels_->tile_bytes + (options.centred ? kernels_->mean_bytes : 0);
}

static_assert(KvBackend<CudaKv>);

}  // namespace lmkit::kernels::cuda
