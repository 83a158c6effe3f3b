// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/arena.hpp>
#include <lmkit/base/error.hpp>

#include <sys/mman.h>

namespace lmkit {
namespace {

std::byte* reserve(std::int64_t bytes) {
  void* const memory = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::memory, "the system refused " + std::to_string(bytes) + " bytes", "room for the memory plan",
                "a smaller --session-len, --max-batch-size or --device-memory-limit");
  }
  return static_cast<std::byte*>(memory);
}

}  // namespace

HostArena::HostArena(std::int64_t bytes) : Arena(reserve(bytes), bytes) {}

void HostArena::use_large_pages(std::int64_t begin, std::int64_t end) noexcept {
  constexpr std::int64_t page = 4096;
  const std::int64_t first = (begin + page - 1) / page * page;
  if (first < end) madvise(data() + first, static_cast<std::size_t>(end - first), MADV_HUGEPAGE);
}

HostArena::~HostArena() { munmap(data(), static_cast<std::size_t>(bytes())); }

}  // namespace lmkit
