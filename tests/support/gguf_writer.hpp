// SPDX-License-Identifier: Apache-2.0
//
// GgufWriter: makes GGUF files in memory, good ones and, with raw(), bad ones. It writes what it is told and checks
// nothing. Written from ggml/docs/gguf.md, apart from the reader it tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit_test {

using Bytes = std::vector<std::byte>;

template <class T>
void append(Bytes& out, const T& value) {
  out.resize(out.size() + sizeof value);
  std::memcpy(out.data() + out.size() - sizeof value, &value, sizeof value);
}

inline void append(Bytes& out, const Bytes& bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

inline void append_text(Bytes& out, std::string_view text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
}

// Numbers of value types and tensor types in the format.
enum GgufNumber : std::uint32_t { gguf_u8, gguf_i8, gguf_u16, gguf_i16, gguf_u32, gguf_i32, gguf_f32, gguf_bool, gguf_string, gguf_array, gguf_u64, gguf_i64, gguf_f64 };
enum GgmlNumber : std::uint32_t { ggml_f32 = 0, ggml_f16 = 1, ggml_q4_0 = 2, ggml_q4_1 = 3, ggml_q8_0 = 8, ggml_q6_k = 14, ggml_bf16 = 30 };

class GgufWriter {
 public:
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;  // of the data section; does not write the key
  std::uint64_t extra_values = 0, extra_tensors = 0;  // claimed but not there; may wrap

  // A value's key and type, then whatever bytes the caller wants.
  GgufWriter& raw(std::string_view key, std::uint32_t type, const Bytes& value) {
    append_text(values_, key);
    append(values_, type);
    append(values_, value);
    ++value_count_;
    return *this;
  }
  template <class T>
  GgufWriter& number(std::string_view key, std::uint32_t type, T value) {
    Bytes bytes;
    append(bytes, value);
    return raw(key, type, bytes);
  }
  GgufWriter& u32(std::string_view key, std::uint32_t value) { return number(key, gguf_u32, value); }
  GgufWriter& f32(std::string_view key, float value) { return number(key, gguf_f32, value); }
  GgufWriter& boolean(std::string_view key, bool value) { return number(key, gguf_bool, static_cast<std::uint8_t>(value)); }
  GgufWriter& text(std::string_view key, std::string_view value) {
    Bytes bytes;
    append_text(bytes, value);
    return raw(key, gguf_string, bytes);
  }
  GgufWriter& texts(std::string_view key, const std::vector<std::string>& values) {
    Bytes bytes = array_head(gguf_string, values.size());
    for (const auto& value : values) append_text(bytes, value);
    return raw(key, gguf_array, bytes);
  }
  GgufWriter& i32s(std::string_view key, const std::vector<std::int32_t>& values) {
    Bytes bytes = array_head(gguf_i32, values.size());
    for (const auto value : values) append(bytes, value);
    return raw(key, gguf_array, bytes);
  }
  static Bytes array_head(std::uint32_t element, std::uint64_t count) {
    Bytes bytes;
    append(bytes, element);
    append(bytes, count);
    return bytes;
  }

  // dims: fastest first. Placed behind the tensor before it, aligned.
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type, const Bytes& content) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    info(name, dims, type, data_.size());
    append(data_, content);
    return *this;
  }
  // Only the description, at any offset.
  GgufWriter& info(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type, std::uint64_t offset) {
    append_text(infos_, name);
    append(infos_, static_cast<std::uint32_t>(dims.size()));
    for (const auto dim : dims) append(infos_, dim);
    append(infos_, type);
    append(infos_, offset);
    ++tensor_count_;
    return *this;
  }

  // Everything before the data section, not padded.
  Bytes header() const {
    Bytes out;
    for (const char c : magic) out.push_back(static_cast<std::byte>(c));
    append(out, version);
    append(out, tensor_count_ + extra_tensors);
    append(out, value_count_ + extra_values);
    append(out, values_);
    append(out, infos_);
    return out;
  }
  Bytes bytes() const {
    Bytes out = header();
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    append(out, data_);
    return out;
  }

 private:
  Bytes values_, infos_, data_;
  std::uint64_t value_count_ = 0, tensor_count_ = 0;
};

}  // namespace lmkit_test
