// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/mapped_file.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lmkit {
namespace {

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void cannot_read(const std::string& why) {
  throw Error(ErrorKind::model, "cannot read it: " + why, "a model file this user may read");
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) cannot_read(std::strerror(errno));
  struct stat facts;
  if (::fstat(file.value, &facts) != 0) cannot_read(std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) cannot_read("it is not a regular file");
  if (facts.st_size == 0) cannot_read("it is empty");

  const auto size = static_cast<std::size_t>(facts.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (memory == MAP_FAILED) cannot_read(std::strerror(errno));
  ::madvise(memory, size, MADV_WILLNEED);  // a hint: start reading ahead now
  bytes_ = {static_cast<const std::byte*>(memory), size};
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

}  // namespace lmkit
