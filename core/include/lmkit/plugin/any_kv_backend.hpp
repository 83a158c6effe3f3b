// SPDX-License-Identifier: Apache-2.0
//
// AnyKvBackend: a KvBackend behind an "lmkit.kv/1" table, chosen at run time. One object serves one layer shape.
#pragma once

#include <lmkit/concepts/kv_table.hpp>
#include <lmkit/plugin/provider.hpp>

#include <memory>

namespace lmkit {

class AnyKvBackend {
 public:
  using Source = Provider<lmkit_kv>;

  template <KvBackend K>
  static Source built_in(std::string name) {
    return {kv_table<K>, std::move(name), {}};
  }

  AnyKvBackend(const Source& source, const KvShape& shape);  // throws Error(plugin) with the plugin's reason

  std::int64_t block_bytes() const noexcept { return table_.block_bytes(self_.get()); }
  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept { return table_.workspace_bytes(self_.get(), &limits); }

  Status append(const KvAppend& args, Stream stream) noexcept { return Status{table_.append(self_.get(), &args, stream.handle)}; }
  Status attend(const KvAttend& args, Stream stream) noexcept { return Status{table_.attend(self_.get(), &args, stream.handle)}; }
  Status copy_blocks(const KvCopy& args, Stream stream) noexcept {
    return Status{table_.copy_blocks(self_.get(), &args, stream.handle)};
  }

 private:
  lmkit_kv table_;
  std::unique_ptr<void, void (*)(void*)> self_;
};

static_assert(KvBackend<AnyKvBackend>);

}  // namespace lmkit
