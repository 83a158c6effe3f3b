// SPDX-License-Identifier: Apache-2.0
//
// KvBackend: the KV cache of one layer shape, as whole launches.
//
// The arguments are the plugin table's own structs (abi/kv.h says what each field means), so a backend written as a
// template, one behind a plugin's table and a hand-written one are called in the same way and give the same numbers.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/base/status.hpp>
#include <lmkit/base/stream.hpp>

#include <concepts>
#include <cstdint>

namespace lmkit {

using KvShape = lmkit_kv_shape;
using KvLimits = lmkit_kv_limits;
using KvPages = lmkit_kv_pages;
using KvAppend = lmkit_kv_append_args;
using KvAttend = lmkit_kv_attend_args;
using KvCopy = lmkit_kv_copy_args;

template <class K>
concept SizesPages = requires(const K kv, const KvLimits& limits) {
  { kv.block_bytes() } noexcept -> std::same_as<std::int64_t>;
  { kv.workspace_bytes(limits) } noexcept -> std::same_as<std::int64_t>;
};

template <class K>
concept Appends = requires(K kv, const KvAppend& args, Stream stream) {
  { kv.append(args, stream) } noexcept -> std::same_as<Status>;
};

template <class K>
concept Attends = requires(K kv, const KvAttend& args, Stream stream) {
  { kv.attend(args, stream) } noexcept -> std::same_as<Status>;
};

template <class K>
concept CopiesBlocks = requires(K kv, const KvCopy& args, Stream stream) {
  { kv.copy_blocks(args, stream) } noexcept -> std::same_as<Status>;
};

template <class K>
concept KvBackend = std::movable<K> && SizesPages<K> && Appends<K> && Attends<K> && CopiesBlocks<K>;

}  // namespace lmkit
