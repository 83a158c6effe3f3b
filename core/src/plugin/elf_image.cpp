// SPDX-License-Identifier: Apache-2.0
//
// Format: System V ABI, chapters 4 and 5; relocation types from the psABIs of x86-64 and AArch64.
#include "elf_image.hpp"

#include <lmkit/base/checked.hpp>
#include <lmkit/base/error.hpp>

#include "printable.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace lmkit {
namespace {

constexpr std::uint64_t longest_string = 4096;

struct Machine {
  std::uint16_t code;
  const char* name;
  std::uint32_t relative, absolute, global_data;  // relocation types
};

#if defined(__aarch64__)
constexpr Machine machine{EM_AARCH64, "AArch64", R_AARCH64_RELATIVE, R_AARCH64_ABS64, R_AARCH64_GLOB_DAT};
#else
constexpr Machine machine{EM_X86_64, "x86-64", R_X86_64_RELATIVE, R_X86_64_64, R_X86_64_GLOB_DAT};
#endif

std::string machine_name(std::uint16_t code) {
  switch (code) {
    case EM_X86_64: return "x86-64";
    case EM_AARCH64: return "AArch64";
    case EM_386: return "32-bit x86";
    case EM_ARM: return "32-bit ARM";
    case EM_RISCV: return "RISC-V";
    case EM_PPC64: return "POWER";
    default: return fmt::format("machine {}", code);
  }
}

// What a file that is not ELF seems to be.
std::string looks_like(std::span<const std::byte> file) {
  if (file.empty()) return "an empty file";
  const std::string_view text(reinterpret_cast<const char*>(file.data()), std::min<std::size_t>(file.size(), 512));
  constexpr std::pair<std::string_view, const char*> known[] = {
      {"!<arch>", "a static library"}, {"GGUF", "a GGUF model"},
      {"PK\x03\x04", "a ZIP archive"}, {"\x1f\x8b", "a gzip archive"},
      {"#!", "a script"},              {"MZ", "a Windows program or DLL"},
      {"\xcf\xfa\xed\xfe", "a macOS library or program"}, {"\xca\xfe\xba\xbe", "a macOS universal binary"},
  };
  for (const auto& [magic, what] : known)
    if (text.starts_with(magic)) return what;
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 || (c >= '\t' && c <= '\r'); });
  return plain ? "a text file" : "a file of another kind";
}

std::string type_name(std::uint16_t type) {
  switch (type) {
    case ET_REL: return "an object file (.o)";
    case ET_EXEC: return "a program";
    case ET_CORE: return "a core dump";
    default: return fmt::format("an ELF file of type {}", type);
  }
}

std::uint32_t gnu_hash(std::string_view name) {
  std::uint32_t hash = 5381;
  for (unsigned char c : name) hash = hash * 33 + c;
  return hash;
}

std::uint32_t sysv_hash(std::string_view name) {
  std::uint32_t hash = 0;
  for (unsigned char c : name) {
    hash = (hash << 4) + c;
    const std::uint32_t high = hash & 0xf0000000u;
    hash = (hash ^ (high >> 24)) & ~high;
  }
  return hash;
}

}  // namespace

void ElfImage::refuse(const std::string& found, const std::string& expected, const std::string& remedy) const {
  throw Error(ErrorKind::plugin, name_ + ": " + found, expected, remedy);
}

ElfImage::ElfImage(std::span<const std::byte> file, std::string name) : file_(file), name_(std::move(name)) {
  if (file.size() < SELFMAG || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0)
    refuse(fmt::format("this is {}, not an ELF file", looks_like(file)), "a shared object (.so)");
  if (file.size() < sizeof header_) refuse("the file is cut off inside its ELF header");
  std::memcpy(&header_, file.data(), sizeof header_);
  if (header_.e_ident[EI_CLASS] != ELFCLASS64) refuse("this is a 32-bit ELF file", "a 64-bit one");
  if (header_.e_ident[EI_DATA] != ELFDATA2LSB) refuse("this ELF file is big-endian", "a little-endian one");
  if (header_.e_machine != machine.code)
    refuse(fmt::format("this ELF file is for {}", machine_name(header_.e_machine)), fmt::format("one for {}", machine.name),
           "building the plugin on this machine");
  if (header_.e_type != ET_DYN) refuse(fmt::format("this is {}", type_name(header_.e_type)), "a shared object (.so)");
  read_segments();
  read_dynamic_section();
  read_relocations();
}

void ElfImage::read_segments() {
  if (header_.e_phentsize != sizeof(Elf64_Phdr)) refuse(fmt::format("a program header of {} bytes", header_.e_phentsize), "one of 56");
  const std::uint64_t size = std::uint64_t{header_.e_phnum} * sizeof(Elf64_Phdr);
  if (header_.e_phoff > file_.size() || size > file_.size() - header_.e_phoff)
    refuse(fmt::format("the file is cut off: its program headers lie behind its {} bytes", file_.size()));
  for (std::uint64_t i = 0; i < header_.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, file_.data() + header_.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type != PT_LOAD && segment.p_type != PT_DYNAMIC) continue;
    if (segment.p_offset > file_.size() || segment.p_filesz > file_.size() - segment.p_offset)
      refuse(fmt::format("the file is cut off: {} bytes of it at {} are needed, it has {}", segment.p_filesz, segment.p_offset, file_.size()));
    if (segment.p_memsz < segment.p_filesz || !checked_add(segment.p_vaddr, segment.p_memsz)) refuse("a segment's sizes contradict each other");
    if (segment.p_type == PT_LOAD) loads_.push_back(segment);
    else dynamic_ = segment;
  }
  if (loads_.empty() || !dynamic_) refuse("this ELF file has nothing to load", "a shared object (.so)");
}

void ElfImage::read_dynamic_section() {
  std::uint64_t rela_entry = sizeof(Elf64_Rela), symbol_entry = sizeof(Elf64_Sym);
  for (std::uint64_t i = 0; i < dynamic_->p_filesz / sizeof(Elf64_Dyn); ++i) {
    Elf64_Dyn entry;
    std::memcpy(&entry, file_.data() + dynamic_->p_offset + i * sizeof entry, sizeof entry);
    const std::uint64_t value = entry.d_un.d_val;
    switch (entry.d_tag) {
      case DT_NULL: i = dynamic_->p_filesz; break;
      case DT_SYMTAB: symbols_ = value; break;
      case DT_SYMENT: symbol_entry = value; break;
      case DT_STRTAB: strings_ = value; break;
      case DT_STRSZ: strings_size_ = value; break;
      case DT_GNU_HASH: gnu_hash_ = value; break;
      case DT_HASH: sysv_hash_ = value; break;
      case DT_RELA: rela_ = value; break;
      case DT_RELASZ: rela_size_ = value; break;
      case DT_RELAENT: rela_entry = value; break;
      default: break;
    }
  }
  if (rela_entry != sizeof(Elf64_Rela) || symbol_entry != sizeof(Elf64_Sym)) refuse("its dynamic section has entries of an unknown size");
}

void ElfImage::read_relocations() {
  if (rela_ == 0 || rela_size_ == 0) return;
  const auto table = bytes_at(rela_, rela_size_, "its relocations");
  relocations_.reserve(table.size() / sizeof(Elf64_Rela));
  for (std::size_t at = 0; at + sizeof(Elf64_Rela) <= table.size(); at += sizeof(Elf64_Rela)) {
    Elf64_Rela entry;
    std::memcpy(&entry, table.data() + at, sizeof entry);
    relocations_.push_back({entry.r_offset, static_cast<std::uint32_t>(ELF64_R_TYPE(entry.r_info)),
                            static_cast<std::uint32_t>(ELF64_R_SYM(entry.r_info)), static_cast<std::uint64_t>(entry.r_addend)});
  }
  std::stable_sort(relocations_.begin(), relocations_.end(), [](const auto& a, const auto& b) { return a.place < b.place; });
}

const Elf64_Phdr& ElfImage::segment_of(std::uint64_t address, std::uint64_t size, std::string_view what) const {
  for (const Elf64_Phdr& segment : loads_) {
    const std::uint64_t offset = address - segment.p_vaddr;
    if (address < segment.p_vaddr || offset >= segment.p_memsz) continue;
    if (offset <= segment.p_filesz && size <= segment.p_filesz - offset) return segment;
    if (offset >= segment.p_filesz) refuse(fmt::format("{} has no value in the file (it lies in zero-initialised memory)", what), "constant data");
  }
  refuse(fmt::format("{} lies outside the file (address {:#x})", what, address));
}

std::span<const std::byte> ElfImage::bytes_at(std::uint64_t address, std::uint64_t size, std::string_view what) const {
  const Elf64_Phdr& segment = segment_of(address, size, what);
  return file_.subspan(segment.p_offset + (address - segment.p_vaddr), size);
}

bool ElfImage::is_code(std::uint64_t address) const noexcept {
  return std::any_of(loads_.begin(), loads_.end(), [&](const Elf64_Phdr& segment) {
    return (segment.p_flags & PF_X) != 0 && address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz;
  });
}

std::uint64_t ElfImage::address_after(std::uint64_t address, std::uint64_t index, std::uint64_t stride) const {
  const auto distance = checked_mul(index, stride);
  const auto sum = distance ? checked_add(address, *distance) : distance;
  if (!sum) refuse("its symbol table is damaged: an address wraps around");
  return *sum;
}

Elf64_Sym ElfImage::symbol_at(std::uint64_t index) const {
  return read<Elf64_Sym>(address_after(symbols_, index, sizeof(Elf64_Sym)), "its symbol table");
}

bool ElfImage::has_name(const Elf64_Sym& symbol, std::string_view name) const {
  if (symbol.st_name >= strings_size_ || name.size() + 1 > strings_size_ - symbol.st_name) return false;
  const auto bytes = bytes_at(address_after(strings_, symbol.st_name, 1), name.size() + 1, "its string table");
  return std::memcmp(bytes.data(), name.data(), name.size()) == 0 && bytes.back() == std::byte{0};
}

// Layout: buckets, first hashed symbol, bloom words, shift | bloom filter (8 bytes each) | buckets | hashes, the last of
// each chain with its low bit set.
std::optional<Elf64_Sym> ElfImage::find_with_gnu_hash(std::string_view name) const {
  constexpr std::string_view what = "its symbol hash table";
  const auto word = [&](std::uint64_t address) { return read<std::uint32_t>(address, what); };
  const std::uint64_t bucket_count = word(gnu_hash_), first = word(address_after(gnu_hash_, 1, 4));
  const std::uint64_t bloom_words = word(address_after(gnu_hash_, 2, 4));
  if (bucket_count == 0) return std::nullopt;
  const std::uint64_t buckets = address_after(gnu_hash_, 2 + bloom_words, 8);
  const std::uint64_t hashes = address_after(buckets, bucket_count, 4);
  const std::uint32_t hash = gnu_hash(name);
  std::uint64_t index = word(address_after(buckets, hash % bucket_count, 4));
  if (index < first) return std::nullopt;
  for (;; ++index) {  // ends at the latest where the segment does
    const std::uint32_t entry = word(address_after(hashes, index - first, 4));
    if ((entry | 1) == (hash | 1))
      if (const Elf64_Sym symbol = symbol_at(index); has_name(symbol, name)) return symbol;
    if ((entry & 1) != 0) return std::nullopt;
  }
}

// Layout: buckets, symbols | buckets | chain of each symbol; 0 ends a chain.
std::optional<Elf64_Sym> ElfImage::find_with_sysv_hash(std::string_view name) const {
  constexpr std::string_view what = "its symbol hash table";
  const auto word = [&](std::uint64_t index) { return read<std::uint32_t>(address_after(sysv_hash_, index, 4), what); };
  const std::uint64_t bucket_count = word(0), symbol_count = word(1);
  if (bucket_count == 0) return std::nullopt;
  std::uint64_t index = word(2 + sysv_hash(name) % bucket_count);
  const std::uint64_t most_steps = std::min<std::uint64_t>(symbol_count, file_.size() / sizeof(std::uint32_t));
  for (std::uint64_t steps = 0; index != 0 && steps < most_steps; ++steps) {
    if (const Elf64_Sym symbol = symbol_at(index); has_name(symbol, name)) return symbol;
    index = word(2 + bucket_count + index);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> ElfImage::data_symbol(std::string_view name) const {
  const auto symbol = gnu_hash_ != 0 ? find_with_gnu_hash(name) : sysv_hash_ != 0 ? find_with_sysv_hash(name) : std::nullopt;
  if (!symbol || symbol->st_shndx == SHN_UNDEF) return std::nullopt;
  if (const auto type = ELF64_ST_TYPE(symbol->st_info); type != STT_OBJECT && type != STT_NOTYPE)
    refuse(fmt::format("its {} is {}", name, type == STT_FUNC ? "a function" : "not data"), "constant data");
  return symbol->st_value;
}

std::uint64_t ElfImage::pointer_at(std::uint64_t address, std::string_view what) const {
  const auto in_place = read<std::uint64_t>(address, what);  // the addend of packed relocations (RELR), or null
  const auto entry = std::lower_bound(relocations_.begin(), relocations_.end(), address,
                                      [](const Relocation& relocation, std::uint64_t place) { return relocation.place < place; });
  if (entry == relocations_.end() || entry->place != address) return in_place;
  if (entry->type == machine.relative) return entry->addend;
  if (entry->type != machine.absolute && entry->type != machine.global_data)
    refuse(fmt::format("{} is known only at run time (relocation type {})", what, entry->type), "constant data");
  const Elf64_Sym symbol = symbol_at(entry->symbol);
  if (symbol.st_shndx == SHN_UNDEF) refuse(fmt::format("{} lies in another library", what), "constant data of the plugin itself");
  return symbol.st_value + entry->addend;
}

std::string ElfImage::string_at(std::uint64_t address, std::string_view what) const {
  const Elf64_Phdr& segment = segment_of(address, 1, what);
  const std::uint64_t offset = address - segment.p_vaddr;
  const std::uint64_t room = std::min(segment.p_filesz - offset, longest_string + 1);
  const std::string_view bytes(reinterpret_cast<const char*>(file_.data() + segment.p_offset + offset), room);
  const std::size_t length = bytes.find('\0');
  if (length == bytes.npos) refuse(fmt::format("{} is not terminated", what), fmt::format("a NUL within {} bytes", longest_string));
  const std::string_view text = bytes.substr(0, length);
  if (!is_printable_utf8(text)) refuse(fmt::format("{} is not printable UTF-8", what));
  return std::string(text);
}

}  // namespace lmkit
