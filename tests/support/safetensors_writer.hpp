// SPDX-License-Identifier: Apache-2.0
//
// SafetensorsWriter: makes safetensors files in memory; file_with() wraps any header, good or bad.
#pragma once

#include "gguf_writer.hpp"

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
    std::string dims;
    for (const auto dim : shape) dims += (dims.empty() ? "" : ",") + std::to_string(dim);
    header_ += (header_.empty() ? "" : ",") + ('"' + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + dims + "],\"data_offsets\":[" +
                                               std::to_string(data_.size()) + "," + std::to_string(data_.size() + content.size()) + "]}");
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
