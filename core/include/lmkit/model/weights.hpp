// SPDX-License-Identifier: Apache-2.0
//
// Weights: one rank's part of a model, on its device and in that device's order. RankShape says which part that is.
#pragma once

#include <lmkit/base/arena.hpp>
#include <lmkit/base/stream.hpp>
#include <lmkit/concepts/parallel_strategy.hpp>
#include <lmkit/kernels/device.hpp>
#include <lmkit/model/model_file.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace lmkit {

// Half-open ranges of what a rank holds. It holds the key/value heads its query heads read, so where a cut falls
// inside a group two ranks hold the same one.
struct RankShape {
  int query_begin = 0, query_end = 0;
  int kv_begin = 0, kv_end = 0;
  int group_offset = 0;  // the first query head's place in its group
  int ffn_begin = 0, ffn_end = 0;                // columns
  int vocabulary_begin = 0, vocabulary_end = 0;  // rows of the output matrix

  int query_heads() const noexcept { return query_end - query_begin; }
  int kv_heads() const noexcept { return kv_end - kv_begin; }
  int ffn() const noexcept { return ffn_end - ffn_begin; }
  int vocabulary() const noexcept { return vocabulary_end - vocabulary_begin; }
};

// FFN columns are cut by the weights' quantisation block.
inline constexpr int ffn_unit = 32;

RankShape cut(const ModelConfig& config, const std::function<Shard(Role, std::int64_t)>& shard);

// Vectors are of the device's dtype.
struct LayerWeights {
  const void* attention_norm = nullptr;  // (hidden)
  kernels::Linear qkv;                   // (local heads * head_dim of q, k and v, hidden)
  const void* head_norms = nullptr;      // (local heads of q and k, head_dim), or null
  kernels::Linear attention_output;      // (hidden, local query heads * head_dim)
  const void* ffn_norm = nullptr;        // (hidden)
  kernels::Linear gate_up;               // (2 local ffn, hidden)
  kernels::Linear down;                  // (hidden, local ffn)
};

struct Weights {
  MatrixView embedding;  // (vocabulary, hidden)
  std::vector<LayerWeights> layers;
  const void* output_norm = nullptr;  // (hidden)
  kernels::Linear output;             // (local vocabulary, hidden)
  std::int64_t mapped_bytes = 0;      // read where they lie in the file
};

// Takes tensors from the file to the device, into the carver; moves nothing when the carver measures.
class WeightLoader {
 public:
  WeightLoader(const ModelFile& file, Carver& carver, kernels::Device& device) : file_(file), carver_(carver), device_(device) {}

  // biases: a vector for each part, or none
  kernels::Linear linear(std::initializer_list<MatrixView> parts, const std::vector<MatrixView>& biases = {});
  const void* vector(const std::string& name, std::int64_t size);
  const void* vectors(const std::vector<MatrixView>& parts);  // one behind the other; null if there are none
  MatrixView table(const MatrixView& matrix);  // whose rows are looked up
  // The linear map of rows of a table that may be on the device already.
  kernels::Linear output(const MatrixView& table, const MatrixView& matrix, std::int64_t begin, std::int64_t end);

  const ModelFile& file() const noexcept { return file_; }
  std::int64_t mapped_bytes() const noexcept { return mapped_bytes_; }

 private:
  MatrixView mapped(const MatrixView& matrix);

  const ModelFile& file_;
  Carver& carver_;
  kernels::Device& device_;
  std::int64_t mapped_bytes_ = 0;
};

// Cosine and sine of every position and frequency: (positions, rotary_dim / 2, 2). A GGUF file's rope_freqs.weight slows single
// frequencies down.
std::vector<float> rope_table(const ModelFile& model, int positions, Stream stream);

}  // namespace lmkit
