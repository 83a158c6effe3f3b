// SPDX-License-Identifier: Apache-2.0
//
// kv_table<K>: the "lmkit.kv/1" table of a KvBackend that is made from a KvShape, with Settings or without.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/concepts/to_table.hpp>

namespace lmkit {

template <KvBackend K>
  requires MadeFromSettings<K, const KvShape&>
struct KvSlots {
  struct Instance {
    const lmkit_host* host;
    K backend;
    Stream on(lmkit_stream* stream) const noexcept { return {stream, host}; }
  };

  static lmkit_status create(const lmkit_host* host, const lmkit_kv_shape* shape, const lmkit_setting* settings, std::int32_t count,
                             void** self) noexcept {
    return guarded(host, [&] { *self = new Instance{host, make_from_settings<K>({settings, count}, *shape)}; });
  }

  static void destroy(void* self) noexcept { delete static_cast<Instance*>(self); }

  static std::int64_t block_bytes(const void* self) noexcept { return static_cast<const Instance*>(self)->backend.block_bytes(); }

  static std::int64_t workspace_bytes(const void* self, const lmkit_kv_limits* limits) noexcept {
    return static_cast<const Instance*>(self)->backend.workspace_bytes(*limits);
  }

  static lmkit_status append(void* self, const lmkit_kv_append_args* args, lmkit_stream* stream) noexcept {
    auto& instance = *static_cast<Instance*>(self);
    return static_cast<lmkit_status>(instance.backend.append(*args, instance.on(stream)));
  }

  static lmkit_status attend(void* self, const lmkit_kv_attend_args* args, lmkit_stream* stream) noexcept {
    auto& instance = *static_cast<Instance*>(self);
    return static_cast<lmkit_status>(instance.backend.attend(*args, instance.on(stream)));
  }

  static lmkit_status copy_blocks(void* self, const lmkit_kv_copy_args* args, lmkit_stream* stream) noexcept {
    auto& instance = *static_cast<Instance*>(self);
    return static_cast<lmkit_status>(instance.backend.copy_blocks(*args, instance.on(stream)));
  }
};

template <class K>
inline constexpr lmkit_kv kv_table{
    .struct_size = sizeof(lmkit_kv),
    .create = KvSlots<K>::create,
    .destroy = KvSlots<K>::destroy,
    .block_bytes = KvSlots<K>::block_bytes,
    .workspace_bytes = KvSlots<K>::workspace_bytes,
    .append = KvSlots<K>::append,
    .attend = KvSlots<K>::attend,
    .copy_blocks = KvSlots<K>::copy_blocks,
};

}  // namespace lmkit
