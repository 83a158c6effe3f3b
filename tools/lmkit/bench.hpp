// SPDX-License-Identifier: Apache-2.0
//
// What the halves of lmkit bench share: the engine as a whole, and its kernels one by one.
#pragma once

#include "arguments.hpp"

#include <lmkit/model/model_file.hpp>

#include <chrono>
#include <cstdint>
#include <vector>

namespace lmkit::cli {

int bench_engine(const Arguments& arguments);
int bench_kernel(const Arguments& arguments);

struct Interrupted {};  // thrown where work is timed, after Ctrl-C

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values);

// Bytes of a tensor in memory, 0 if the model has none of this name. On a GPU they are 16-bit.
std::int64_t weight_bytes(const ModelFile& model, const std::string& name, bool on_gpu);
std::int64_t layer_weight_bytes(const ModelFile& model, int layer, bool on_gpu);

}  // namespace lmkit::cli
