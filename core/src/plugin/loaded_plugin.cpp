// SPDX-License-Identifier: Apache-2.0
//
// From a plugin's entry to typed tables: prefix copied, slots checked.
#include <lmkit/plugin/registry.hpp>

#include <lmkit/base/error.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace lmkit {
namespace {

// In ABI 1.0 each table is struct_size, padding, and slots, all of them required.
constexpr std::size_t kv_size_1_0 = offsetof(lmkit_kv, copy_blocks) + sizeof(void*);
constexpr std::size_t parallel_size_1_0 = offsetof(lmkit_parallel, broadcast) + sizeof(void*);
constexpr std::size_t allocator_size_1_0 = offsetof(lmkit_allocator, decide) + sizeof(void*);

}  // namespace

LoadedPlugin::LoadedPlugin(PluginFacts facts, std::vector<PluginSetting> settings, const lmkit_plugin* entry)
    : facts_(std::move(facts)), settings_(std::move(settings)), entry_(entry) {}

template <class Table>
std::optional<Provider<Table>> LoadedPlugin::provider(const char* extension, std::size_t size_1_0) const {
  if (std::find(facts_.extensions.begin(), facts_.extensions.end(), extension) == facts_.extensions.end()) return std::nullopt;
  const void* theirs = entry_->extension(extension);
  if (theirs == nullptr) throw Error(ErrorKind::plugin, fmt::format("{} lists {} but has no table for it", facts_.id, extension));
  std::uint32_t size = 0;
  std::memcpy(&size, theirs, sizeof size);
  if (size < size_1_0)
    throw Error(ErrorKind::plugin, fmt::format("{}: its table {} has a struct_size of {}", facts_.id, extension, size),
                fmt::format("at least {}", size_1_0));
  Provider<Table> provider{{}, facts_.id, settings_};
  std::memcpy(&provider.table, theirs, std::min<std::size_t>(size, sizeof(Table)));
  for (std::size_t at = sizeof(void*); at < size_1_0; at += sizeof(void*)) {
    void* slot = nullptr;
    std::memcpy(&slot, reinterpret_cast<const std::byte*>(&provider.table) + at, sizeof slot);
    if (slot == nullptr) throw Error(ErrorKind::plugin, fmt::format("{}: slot {} of its table {} is null", facts_.id, at / sizeof(void*), extension));
  }
  return provider;
}

std::optional<AnyKvBackend::Source> LoadedPlugin::kv() const { return provider<lmkit_kv>(LMKIT_KV_EXTENSION, kv_size_1_0); }

std::optional<AnyParallel::Source> LoadedPlugin::parallel() const {
  return provider<lmkit_parallel>(LMKIT_PARALLEL_EXTENSION, parallel_size_1_0);
}

std::optional<AnyAllocator::Source> LoadedPlugin::allocator() const {
  return provider<lmkit_allocator>(LMKIT_ALLOCATOR_EXTENSION, allocator_size_1_0);
}

}  // namespace lmkit
