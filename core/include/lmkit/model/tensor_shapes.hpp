// SPDX-License-Identifier: Apache-2.0
//
// tensor_shapes: the tensors that a model of some config consists of, by their GGUF names. What a file has beyond them
// would change the result if it were passed over, so readers refuse it.
#pragma once

#include <lmkit/model/model_config.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace lmkit {

struct TensorShape {
  std::int64_t rows = 0, cols = 0;  // a vector is one row
};

using TensorShapes = std::map<std::string, TensorShape, std::less<>>;

TensorShapes tensor_shapes(const ModelConfig& config);

std::int64_t parameter_count(const TensorShapes& shapes) noexcept;

}  // namespace lmkit
