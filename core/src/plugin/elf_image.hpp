// SPDX-License-Identifier: Apache-2.0
//
// ElfImage: constant data of an ELF64 shared object as the loader would leave it, read from the file's bytes.
//
// Addresses are load addresses with base 0. Every access is checked against the file; whatever a file claims, reading
// costs no more than a few passes over it. Errors are Error(plugin) and begin with the file's name.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

class ElfImage {
 public:
  // Views `file`. Throws unless it is a whole shared object for this machine.
  ElfImage(std::span<const std::byte> file, std::string name);

  [[noreturn]] void refuse(const std::string& found, const std::string& expected = {}, const std::string& remedy = {}) const;

  // The address of an exported data symbol; nothing if there is none of that name.
  std::optional<std::uint64_t> data_symbol(std::string_view symbol) const;

  // `what` says in an error what was looked for.
  template <class T>
  T read(std::uint64_t address, std::string_view what) const {
    T value;
    std::memcpy(&value, bytes_at(address, sizeof(T), what).data(), sizeof(T));
    return value;
  }

  // The pointer that the loader leaves at `address`; 0 is null.
  std::uint64_t pointer_at(std::uint64_t address, std::string_view what) const;

  // Printable UTF-8, up to its NUL.
  std::string string_at(std::uint64_t address, std::string_view what) const;

  bool is_code(std::uint64_t address) const noexcept;

 private:
  struct Relocation {
    std::uint64_t place;
    std::uint32_t type, symbol;
    std::uint64_t addend;
  };

  void read_segments();
  void read_dynamic_section();
  void read_relocations();
  const Elf64_Phdr& segment_of(std::uint64_t address, std::uint64_t size, std::string_view what) const;
  std::span<const std::byte> bytes_at(std::uint64_t address, std::uint64_t size, std::string_view what) const;
  std::uint64_t address_after(std::uint64_t address, std::uint64_t index, std::uint64_t stride) const;
  Elf64_Sym symbol_at(std::uint64_t index) const;
  bool has_name(const Elf64_Sym& symbol, std::string_view name) const;
  std::optional<Elf64_Sym> find_with_gnu_hash(std::string_view name) const;
  std::optional<Elf64_Sym> find_with_sysv_hash(std::string_view name) const;

  std::span<const std::byte> file_;
  std::string name_;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> loads_;
  std::optional<Elf64_Phdr> dynamic_;
  std::uint64_t symbols_ = 0, strings_ = 0, strings_size_ = 0, gnu_hash_ = 0, sysv_hash_ = 0, rela_ = 0, rela_size_ = 0;
  std::vector<Relocation> relocations_;  // by place
};

}  // namespace lmkit
