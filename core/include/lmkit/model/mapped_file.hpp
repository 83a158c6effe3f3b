// SPDX-License-Identifier: Apache-2.0
//
// MappedFile: a file's bytes as read-only memory. Nothing is read until it is touched, and what is touched stays in the
// page cache that all processes share.
//
// The file must not shrink while it is mapped: touching a page behind its new end raises SIGBUS, which ends the process.
// So replace a model by renaming a new file over it, which leaves the mapped one alone.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace lmkit {

class MappedFile {
 public:
  // Throws Error(model) if the path is not a readable, non-empty regular file; the caller says which file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }  // starts on a page

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace lmkit
