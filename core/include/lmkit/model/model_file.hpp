// SPDX-License-Identifier: Apache-2.0
//
// ModelFile: a model on disk: its config, its tokenizer, and its tensors by their GGUF names, memory-mapped.
//
// Names follow GGUF whatever the format: token_embd.weight, output.weight, output_norm.weight,
// blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_gate,ffn_up,ffn_down}.weight, rope_freqs.weight (see
// RopeConfig). Norms are F32 whatever the file has; output.weight is absent where config().tied_embeddings.
#pragma once

#include <lmkit/base/tensor_view.hpp>
#include <lmkit/model/model_config.hpp>
#include <lmkit/text/tokenizer_data.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lmkit {

class ModelFile {
 public:
  virtual ~ModelFile() = default;

  virtual const ModelConfig& config() const noexcept = 0;
  virtual const TokenizerData& tokenizer() const noexcept = 0;
  // A vector is a matrix of one row. Views live as long as the file.
  virtual std::optional<MatrixView> find(std::string_view name) const noexcept = 0;

  // The tensor, checked to be (rows, cols); throws Error(model).
  MatrixView matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const;
};

// Opens a GGUF file or a Hugging Face directory; throws Error(model).
std::unique_ptr<ModelFile> open_model(const std::string& path);

// What --model-path names: a path as it is, or a model in the cache ($XDG_CACHE_HOME/lmkit/models); an empty name is
// the default model. Throws Error(model) naming the command that gets a missing one.
std::string resolve_model(const std::string& name);

}  // namespace lmkit
