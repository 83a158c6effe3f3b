// SPDX-License-Identifier: Apache-2.0
//
// safetensors (huggingface.co/docs/safetensors): u64 header length, a JSON header
//     {"name": {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [begin, end]}, …, "__metadata__": {…}}
// and the tensors' bytes, which the offsets cover without gap or overlap.
//
// The reader checks everything once; tensors are views into the bytes it was given, which must outlive it. Whatever is
// wrong is an Error(model) that names the tensor.
#pragma once

#include <lmkit/base/tensor_view.hpp>

#include <functional>
#include <map>
#include <span>
#include <string>

namespace lmkit {

class Safetensors {
 public:
  explicit Safetensors(std::span<const std::byte> file);

  // (product of all dimensions but the last, last dimension); formats F32, F16 and BF16
  const std::map<std::string, MatrixView, std::less<>>& tensors() const noexcept { return tensors_; }

 private:
  std::map<std::string, MatrixView, std::less<>> tensors_;
};

}  // namespace lmkit
