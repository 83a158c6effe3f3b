// SPDX-License-Identifier: Apache-2.0
#include <lmkit/plugin/plugin_facts.hpp>

#include <lmkit/base/error.hpp>

#include "elf_image.hpp"

#include <fmt/core.h>

#include <sys/mman.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace lmkit {
namespace {

// Sizes of the structs in ABI 1.0: up to the end of what was their last member.
constexpr std::uint32_t plugin_size_1_0 = offsetof(lmkit_plugin, extension) + sizeof(lmkit_plugin::extension);
constexpr std::uint32_t build_size_1_0 = offsetof(lmkit_build, cuda_archs) + sizeof(lmkit_build::cuda_archs);
constexpr std::uint32_t option_size_1_0 = offsetof(lmkit_option, choices) + sizeof(lmkit_option::choices);

constexpr std::size_t longest_list = 256;

// Names that are typed on a command line: "kv-int4", "max-share".
bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && name.front() != '-' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

class FactsReader {
 public:
  FactsReader(std::span<const std::byte> elf, const std::string& name) : image_(elf, name) {}

  PluginFacts read() const {
    const auto entry = image_.data_symbol(LMKIT_PLUGIN_SYMBOL);
    if (!entry) image_.refuse("no symbol " LMKIT_PLUGIN_SYMBOL ": this is a shared object, but not an lmkit plugin");
    PluginFacts facts;
    read_abi(*entry, facts);
    facts.id = text(*entry, offsetof(lmkit_plugin, id), "the plugin's id");
    if (!is_plain_name(facts.id)) image_.refuse(fmt::format("the plugin's id is '{}'", facts.id), "at most 64 of a-z 0-9 - _");
    facts.version = text(*entry, offsetof(lmkit_plugin, version), "the plugin's version");
    facts.summary = text(*entry, offsetof(lmkit_plugin, summary), "the plugin's summary");
    facts.licence = text(*entry, offsetof(lmkit_plugin, licence), "the plugin's licence");
    read_build(required(*entry, offsetof(lmkit_plugin, build), "the plugin's build facts"), facts);
    for (const std::uint64_t id : list(*entry, offsetof(lmkit_plugin, extensions), "the plugin's list of extensions"))
      facts.extensions.push_back(image_.string_at(id, "the id of an extension"));
    if (facts.extensions.empty()) image_.refuse("the plugin has no extension", "at least one, such as lmkit.kv/1");
    for (const std::uint64_t option : list(*entry, offsetof(lmkit_plugin, options), "the plugin's list of options"))
      facts.options.push_back(read_option(option, facts));
    if (!image_.is_code(required(*entry, offsetof(lmkit_plugin, extension), "the plugin's extension()")))
      image_.refuse("the plugin's extension() is not code");
    return facts;
  }

 private:
  void read_abi(std::uint64_t entry, PluginFacts& facts) const {
    const auto size = image_.read<std::uint32_t>(entry, LMKIT_PLUGIN_SYMBOL);
    facts.abi_major = image_.read<std::uint16_t>(entry + offsetof(lmkit_plugin, abi_major), LMKIT_PLUGIN_SYMBOL);
    facts.abi_minor = image_.read<std::uint16_t>(entry + offsetof(lmkit_plugin, abi_minor), LMKIT_PLUGIN_SYMBOL);
    if (facts.abi_major != LMKIT_ABI_MAJOR || facts.abi_minor > LMKIT_ABI_MINOR)
      image_.refuse(fmt::format("built for ABI {}.{}, this lmkit has {}.{}", facts.abi_major, facts.abi_minor, LMKIT_ABI_MAJOR, LMKIT_ABI_MINOR), {},
                    facts.abi_major < LMKIT_ABI_MAJOR ? "a newer build of the plugin" : "a newer lmkit, or a build of the plugin for this one");
    check_size(size, plugin_size_1_0, LMKIT_PLUGIN_SYMBOL);
    image_.read<std::array<std::byte, plugin_size_1_0>>(entry, LMKIT_PLUGIN_SYMBOL);  // all of it is in the file
  }

  void read_build(std::uint64_t build, PluginFacts& facts) const {
    check_size(image_.read<std::uint32_t>(build, "the plugin's build facts"), build_size_1_0, "the plugin's build facts");
    facts.compiler = text(build, offsetof(lmkit_build, compiler), "the compiler's name");
    facts.cpu_isas = text(build, offsetof(lmkit_build, cpu_isas), "the list of instruction sets");
    facts.cuda_archs = text(build, offsetof(lmkit_build, cuda_archs), "the list of CUDA architectures");
  }

  PluginOption read_option(std::uint64_t address, const PluginFacts& facts) const {
    check_size(image_.read<std::uint32_t>(address, "an option"), option_size_1_0, "an option");
    PluginOption option;
    option.name = text(address, offsetof(lmkit_option, name), "an option's name");
    if (!is_plain_name(option.name)) image_.refuse(fmt::format("an option is called '{}'", option.name), "at most 64 of a-z 0-9 - _");
    if (std::any_of(facts.options.begin(), facts.options.end(), [&](const PluginOption& other) { return other.name == option.name; }))
      image_.refuse(fmt::format("two options are called '{}'", option.name));
    const std::string what = fmt::format("option '{}'", option.name);
    option.help = text(address, offsetof(lmkit_option, help), what + ": its help");
    const auto type = image_.read<std::int32_t>(address + offsetof(lmkit_option, type), what);
    if (type < LMKIT_OPTION_BOOL || type > LMKIT_OPTION_STRING) image_.refuse(fmt::format("{} has type {}", what, type), "0 to 3");
    option.type = static_cast<OptionType>(type);
    option.minimum = image_.read<double>(address + offsetof(lmkit_option, minimum), what);
    option.maximum = image_.read<double>(address + offsetof(lmkit_option, maximum), what);
    const bool numeric = option.type == OptionType::integer || option.type == OptionType::number;
    if (numeric && !(option.minimum <= option.maximum)) image_.refuse(fmt::format("{} has a minimum above its maximum", what));
    if (const auto choices = image_.pointer_at(address + offsetof(lmkit_option, choices), what); choices != 0)
      option.choices = split_choices(image_.string_at(choices, what + ": its choices"));
    if (const auto value = image_.pointer_at(address + offsetof(lmkit_option, default_value), what); value != 0) {
      option.default_value = image_.string_at(value, what + ": its default");
      option.default_value = checked_option_value(facts.id + " (its own default)", option, *option.default_value);
    }
    return option;
  }

  void check_size(std::uint32_t size, std::uint32_t smallest, std::string_view what) const {
    if (size < smallest) image_.refuse(fmt::format("{} has a struct_size of {}", what, size), fmt::format("at least {}", smallest));
  }

  std::uint64_t required(std::uint64_t base, std::uint64_t offset, const std::string& what) const {
    const std::uint64_t address = image_.pointer_at(base + offset, what);
    if (address == 0) image_.refuse(fmt::format("{} is null", what));
    return address;
  }

  std::string text(std::uint64_t base, std::uint64_t offset, const std::string& what) const {
    return image_.string_at(required(base, offset, what), what);
  }

  // A null-terminated array of pointers.
  std::vector<std::uint64_t> list(std::uint64_t base, std::uint64_t offset, const std::string& what) const {
    std::vector<std::uint64_t> pointers;
    for (std::uint64_t at = required(base, offset, what); const std::uint64_t pointer = image_.pointer_at(at, what); at += sizeof(void*)) {
      pointers.push_back(pointer);
      if (pointers.size() > longest_list) image_.refuse(fmt::format("{} has no end", what), fmt::format("a null within {}", longest_list));
    }
    return pointers;
  }

  static std::vector<std::string> split_choices(std::string_view text) {
    std::vector<std::string> choices;
    for (std::size_t end; !text.empty(); text.remove_prefix(std::min(text.size(), end + 1))) {
      end = std::min(text.find('|'), text.size());
      choices.emplace_back(text.substr(0, end));
    }
    return choices;
  }

  ElfImage image_;
};

// A file as memory; what is not touched is not read.
class MappedPlugin {
 public:
  explicit MappedPlugin(const std::filesystem::path& file) {
    const auto refuse = [&](const std::string& found) { throw Error(ErrorKind::plugin, file.string() + ": " + found); };
    const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) refuse(std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    const auto size = regular ? static_cast<std::size_t>(status.st_size) : 0;
    void* address = size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
    ::close(descriptor);
    if (!regular) refuse("this is not a regular file");
    if (address == MAP_FAILED) refuse("the file cannot be mapped into memory");
    bytes_ = {static_cast<const std::byte*>(address), size};
  }
  ~MappedPlugin() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  MappedPlugin(const MappedPlugin&) = delete;
  MappedPlugin& operator=(const MappedPlugin&) = delete;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace

PluginFacts parse_plugin_facts(std::span<const std::byte> elf, const std::string& name) { return FactsReader(elf, name).read(); }

PluginFacts read_plugin_facts(const std::filesystem::path& file) {
  const MappedPlugin plugin(file);
  PluginFacts facts = parse_plugin_facts(plugin.bytes(), file.string());
  if (facts.id != file.stem())
    throw Error(ErrorKind::plugin, fmt::format("{}: the plugin inside is called '{}'", file.string(), facts.id),
                "a file named after its plugin", fmt::format("renaming it to {}.so", facts.id));
  facts.file = file;
  return facts;
}

}  // namespace lmkit
