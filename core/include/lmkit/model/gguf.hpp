// SPDX-License-Identifier: Apache-2.0
//
// GGUF v3 (ggml/docs/gguf.md): a file of metadata (key, typed value) and tensors, little endian.
//
//   "GGUF"  u32 version  u64 tensors  u64 values
//   values:   string key, u32 type, the value                      (string: u64 length, bytes)
//   tensors:  string name, u32 dims, u64 dim[dims] (fastest first), u32 ggml type, u64 offset into the data section
//   data:     starts at the next multiple of general.alignment (32 if absent), tensors at multiples of it
//
// The reader checks everything once and copies nothing: keys, names, strings and tensors are views into the bytes it
// was given, which must outlive it. Whatever is wrong is an Error(model) that names the key, tensor or offset.
#pragma once

#include <lmkit/base/tensor_view.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit {

// The numbers of the format.
enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// A value where it lies. Of an array: what its elements are, how many, and their bytes one after another.
struct GgufValue {
  GgufType type{};
  GgufType element{};       // arrays
  std::uint64_t count = 1;  // arrays
  std::span<const std::byte> bytes;
};

class Gguf {
 public:
  explicit Gguf(std::span<const std::byte> file);  // file[0] aligned for any tensor: 32 bytes or more

  const std::map<std::string_view, GgufValue>& values() const noexcept { return values_; }
  const std::map<std::string_view, MatrixView>& tensors() const noexcept { return tensors_; }

  // A value by key: nothing if the key is absent, Error(model) if it has another type or lies outside [low, high].
  // Any integer type serves as an integer, any number as a number; text is valid UTF-8.
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  std::optional<double> number(std::string_view key) const;  // finite
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;

 private:
  std::map<std::string_view, GgufValue> values_;
  std::map<std::string_view, MatrixView> tensors_;
};

}  // namespace lmkit
