// SPDX-License-Identifier: Apache-2.0
//
// The one include of a plugin. README.md beside this folder shows each kind of plugin in full.
//
//   A KV codec, easy or foldable (concepts/kv_codec.hpp), in one file given to lmkit_add_plugin as SOURCES and KERNELS:
//
//     struct MyCodec { static constexpr int group = 32; struct Packed {…}; encode, decode };
//     LMKIT_KV_CODEC_PLUGIN(MyCodec, "kv-mine", "1.0.0", "what it does, in a line", "Apache-2.0")
//
//   With the codec in a header, a .cu file given as CUDA adds its CUDA half (kernels/cuda/codec_kv.hpp):
//
//     LMKIT_KV_CODEC_CUDA(MyCodec);
//
//   Anything else: a C++ type that models a concept, its options, and the entry:
//
//     constexpr lmkit_option depth = lmkit::plugin::integer_option("depth", "how deep", "3", 1, 9);
//     LMKIT_PLUGIN_ENTRY = lmkit::plugin::describe("kv-own", "1.0.0", "…", "MIT", lmkit::plugin::options<depth>,
//                                                  lmkit::plugin::serves<lmkit::kv_table<MyBackend>>);
//
// MyBackend is made from (const KvShape&, Settings) or (const KvShape&); an AllocatorPolicy and a ParallelStrategy's Group
// from (Settings) or nothing. A constructor throws lmkit::Error; no exception crosses to the host. The entry is constant
// data with addresses alone, so the host can read it from the file without running it.
#pragma once

#include <lmkit/abi/allocator.h>
#include <lmkit/abi/kv.h>
#include <lmkit/abi/parallel.h>
#include <lmkit/abi/plugin.h>
#include <lmkit/concepts/kv_codec.hpp>

#include <type_traits>

#if defined(LMKIT_ISA)  // this file is being compiled for one instruction set
#include <lmkit/kernels/kv_kernels.hpp>
#else
#include <lmkit/concepts/allocator_table.hpp>
#include <lmkit/concepts/kv_table.hpp>
#include <lmkit/concepts/parallel_table.hpp>
#include <lmkit/kernels/cpu_kv.hpp>
#if defined(LMKIT_PLUGIN_CUDA_ARCHS)
#include <lmkit/kernels/cuda/codec_kv.hpp>
#include <lmkit/kernels/cuda/device_kv.hpp>
#endif
#endif

namespace lmkit::plugin {

// --- options: default_value null leaves an option unset unless it is given -----------------------------------------------

constexpr lmkit_option flag_option(const char* name, const char* help, bool default_value) noexcept {
  return {sizeof(lmkit_option), LMKIT_OPTION_BOOL, name, help, default_value ? "true" : "false", 0, 0, nullptr};
}

constexpr lmkit_option integer_option(const char* name, const char* help, const char* default_value, double minimum, double maximum) noexcept {
  return {sizeof(lmkit_option), LMKIT_OPTION_INT, name, help, default_value, minimum, maximum, nullptr};
}

constexpr lmkit_option number_option(const char* name, const char* help, const char* default_value, double minimum, double maximum) noexcept {
  return {sizeof(lmkit_option), LMKIT_OPTION_FLOAT, name, help, default_value, minimum, maximum, nullptr};
}

// choices: "a|b|c", or null for any text
constexpr lmkit_option text_option(const char* name, const char* help, const char* default_value, const char* choices = nullptr) noexcept {
  return {sizeof(lmkit_option), LMKIT_OPTION_STRING, name, help, default_value, 0, 0, choices};
}

template <const lmkit_option&... Option>
struct Options {
  static constexpr const lmkit_option* list[] = {&Option..., nullptr};
};

template <const lmkit_option&... Option>
inline constexpr Options<Option...> options;

// --- tables ----------------------------------------------------------------------------------------------------------------

constexpr const char* extension_of(const lmkit_kv&) noexcept { return LMKIT_KV_EXTENSION; }
constexpr const char* extension_of(const lmkit_parallel&) noexcept { return LMKIT_PARALLEL_EXTENSION; }
constexpr const char* extension_of(const lmkit_allocator&) noexcept { return LMKIT_ALLOCATOR_EXTENSION; }

template <const auto&... Table>
struct Tables {
  static constexpr const char* ids[] = {extension_of(Table)..., nullptr};

  static const void* find(const char* id) noexcept {
    const void* found = nullptr;
    ((__builtin_strcmp(id, extension_of(Table)) == 0 ? void(found = &Table) : void()), ...);
    return found;
  }
};

template <const auto&... Table>
inline constexpr Tables<Table...> serves;

// What lmkit_add_plugin knows of the build.
inline constexpr lmkit_build build{
    .struct_size = sizeof(lmkit_build),
#if defined(__clang__)
    .compiler = __VERSION__,
#else
    .compiler = "g++ " __VERSION__,
#endif
#if defined(LMKIT_PLUGIN_CPU_ISAS)
    .cpu_isas = LMKIT_PLUGIN_CPU_ISAS,
#else
    .cpu_isas = "baseline",
#endif
#if defined(LMKIT_PLUGIN_CUDA_ARCHS)
    .cuda_archs = LMKIT_PLUGIN_CUDA_ARCHS,
#else
    .cuda_archs = "",
#endif
};

// id: the folder, file and CLI name; licence: an SPDX expression
template <const lmkit_option&... Option, const auto&... Table>
constexpr lmkit_plugin describe(const char* id, const char* version, const char* summary, const char* licence, Options<Option...>,
                                Tables<Table...>) noexcept {
  return {sizeof(lmkit_plugin),     LMKIT_ABI_MAJOR,        LMKIT_ABI_MINOR, id, version, summary, licence, &build,
          Tables<Table...>::ids, Options<Option...>::list, Tables<Table...>::find};
}

}  // namespace lmkit::plugin

#define LMKIT_PLUGIN_ENTRY extern "C" __attribute__((visibility("default"))) constexpr lmkit_plugin lmkit_plugin_entry

// The kernels of one codec for the instruction set that is being compiled.
#define LMKIT_KV_KERNELS(Codec) \
  template const lmkit::kernels::KvKernels& lmkit::kernels::kv_kernels<lmkit::kernels::isa::LMKIT_ISA, Codec>() noexcept

namespace lmkit::plugin {

// Stands in for a type that is no KvCodec, so that the one message about it is not followed by others.
struct NoCodec {
  static constexpr int group = 8;
  struct Packed {
    Half values[group];
  };
  LMKIT_HD Packed encode(const Vec<float, group>&) const noexcept { return {}; }
  LMKIT_HD Vec<float, group> decode(const Packed&) const noexcept { return {}; }
};

template <class Codec>
using CodecOr = std::conditional_t<KvCodec<Codec>, Codec, NoCodec>;

}  // namespace lmkit::plugin

#if defined(LMKIT_ISA)

#define LMKIT_KV_CODEC_PLUGIN(Codec, id, version, summary, licence) \
  static_assert(lmkit::check_kv_codec<Codec>());                    \
  LMKIT_KV_KERNELS(lmkit::plugin::CodecOr<Codec>);

#else

namespace lmkit::plugin {

// The KvBackend of one codec, for every head_dim that its group divides.
template <KvCodec Codec>
class CodecKv : public kernels::CpuKv {
 public:
  explicit CodecKv(const KvShape& shape) : CpuKv(shape, kernels::kv_kernels_for<Codec>()) {
    if (shape.head_dim % Codec::group != 0)
      throw Error(ErrorKind::plugin, "head_dim " + std::to_string(shape.head_dim),
                  "a multiple of the codec's group, " + std::to_string(Codec::group));
  }
};

#if defined(LMKIT_PLUGIN_CUDA_ARCHS)
template <KvCodec Codec>
using CodecBackend = kernels::cuda::DeviceKv<CodecKv<Codec>, kernels::cuda::CodecCudaKv<Codec>>;
#else
template <KvCodec Codec>
using CodecBackend = CodecKv<Codec>;
#endif

}  // namespace lmkit::plugin

#define LMKIT_KV_CODEC_PLUGIN(Codec, id, version, summary, licence)                                                      \
  static_assert(lmkit::check_kv_codec<Codec>());                                                                         \
  LMKIT_PLUGIN_ENTRY = lmkit::plugin::describe(id, version, summary, licence, lmkit::plugin::options<>,                  \
                                               lmkit::plugin::serves<lmkit::kv_table<lmkit::plugin::CodecBackend<lmkit::plugin::CodecOr<Codec>>>>);

#endif
