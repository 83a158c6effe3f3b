// SPDX-License-Identifier: Apache-2.0
//
// SafetensorsWriter: makes safetensors files in memory; file_with() wraps any header, good or bad.
#pragma once

#include "gguf_writer.hpp"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

namespace lmkit_test {

inline Bytes file_with(std::string_view header, const Bytes& data = {}) {
  Bytes out;
  append_text(out, header);  // the format's u64 length and bytes
  append(out, data);
  return out;
}

class SafetensorsWriter {
 public:
  SafetensorsWriter& tensor(const std::string& name, const std::string& dtype, const std::vector<std::uint64_t>& shape, const Bytes& content) {
    header_ += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", header_.empty() ? "" : ",", name, dtype,
                           fmt::join(shape, ","), data_.size(), data_.size() + content.size());
    append(data_, content);
    return *this;
  }
  Bytes bytes() const {
    std::string header = "{" + header_ + "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return file_with(header, data_);
  }

 private:
  std::string header_;
  Bytes data_;
};

}  // namespace lmkit_test
