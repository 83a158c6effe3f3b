// SPDX-License-Identifier: Apache-2.0
//
// Any text as config.json and as generation_config.json: read, or an Error(model).
#include <lmkit/base/error.hpp>
#include <lmkit/model/hf_config.hpp>

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto attempt = [](auto read) {
    try {
      read();
    } catch (const lmkit::Error& error) {
      if (error.kind() != lmkit::ErrorKind::model) throw;
    }
  };
  attempt([&] { lmkit::read_hf_config(text); });
  attempt([&] { lmkit::read_hf_eos(text, 100); });
  return 0;
}
