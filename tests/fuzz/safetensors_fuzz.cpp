// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a safetensors file: opened, or an Error(model).
#include <lmkit/base/error.hpp>
#include <lmkit/model/safetensors.hpp>

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) try {
  const lmkit::Safetensors content({reinterpret_cast<const std::byte*>(data), size});
  for (const auto& [name, view] : content.tensors())
    if (view.data < reinterpret_cast<const std::byte*>(data) ||
        view.row(view.rows) > reinterpret_cast<const std::byte*>(data) + size)
      std::abort();
  return 0;
} catch (const lmkit::Error& error) {
  if (error.kind() != lmkit::ErrorKind::model) throw;
  return 0;
}
