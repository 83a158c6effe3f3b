// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/llama.hpp>

#include <fmt/format.h>

namespace lmkit {
namespace {

// Columns of a row-parallel matrix: a cut must not split a quantisation block.
MatrixView columns(const MatrixView& matrix, const std::string& name, std::int64_t begin, std::int64_t end) {
  const WeightBlock block = block_of(matrix.format);
  if (begin % block.values != 0 || (end % block.values != 0 && end != matrix.cols)) {
    throw Error(ErrorKind::plugin, fmt::format("the ranks' cut of {} at columns {}..{} splits its {} blocks", name, begin, end, block.name),
                fmt::format("multiples of {}", block.values), "fewer ranks or another quantisation of the model");
  }
  return matrix.col_range(begin, end);
}

}  // namespace

Weights Llama::load(const ModelConfig& config, const RankShape& shape, WeightLoader& loader) {
  const ModelFile& file = loader.file();
  const std::int64_t hidden = config.hidden, dim = config.head_dim;
  const std::int64_t queries = config.query_heads * dim, keys = config.kv_heads * dim;

  Weights weights;
  const MatrixView embedding = file.matrix("token_embd.weight", config.vocabulary, hidden);
  weights.embedding = loader.table(embedding);
  for (int i = 0; i < config.layers; ++i) {
    const auto name = [i](const char* part) { return fmt::format("blk.{}.{}.weight", i, part); };
    const auto rows = [&](const char* part, std::int64_t all, std::int64_t begin, std::int64_t end) {
      return file.matrix(name(part), all, hidden).row_range(begin, end);
    };
    const auto cols = [&](const char* part, std::int64_t all, std::int64_t begin, std::int64_t end) {
      return loader.linear({columns(file.matrix(name(part), hidden, all), name(part), begin, end)});
    };
    const auto bias = [&](const char* part, std::int64_t all, std::int64_t begin, std::int64_t end) {
      return file.matrix(fmt::format("blk.{}.{}.bias", i, part), 1, all).col_range(begin, end);
    };
    std::vector<MatrixView> biases, head_norms;
    if (config.qkv_bias) {
      biases = {bias("attn_q", queries, shape.query_begin * dim, shape.query_end * dim),
                bias("attn_k", keys, shape.kv_begin * dim, shape.kv_end * dim),
                bias("attn_v", keys, shape.kv_begin * dim, shape.kv_end * dim)};
    }
    if (config.head_norms) {
      head_norms.assign(shape.query_heads(), file.matrix(name("attn_q_norm"), 1, dim));
      head_norms.resize(shape.query_heads() + shape.kv_heads(), file.matrix(name("attn_k_norm"), 1, dim));
    }
    LayerWeights& layer = weights.layers.emplace_back();
    layer.attention_norm = loader.vector(name("attn_norm"), hidden);
    layer.qkv = loader.linear({rows("attn_q", queries, shape.query_begin * dim, shape.query_end * dim),
                               rows("attn_k", keys, shape.kv_begin * dim, shape.kv_end * dim),
                               rows("attn_v", keys, shape.kv_begin * dim, shape.kv_end * dim)}, biases);
    layer.head_norms = loader.vectors(head_norms);
    layer.attention_output = cols("attn_output", queries, shape.query_begin * dim, shape.query_end * dim);
    layer.ffn_norm = loader.vector(name("ffn_norm"), hidden);
    layer.gate_up = loader.linear({rows("ffn_gate", config.ffn, shape.ffn_begin, shape.ffn_end),
                                   rows("ffn_up", config.ffn, shape.ffn_begin, shape.ffn_end)});
    layer.down = cols("ffn_down", config.ffn, shape.ffn_begin, shape.ffn_end);
  }
  weights.output_norm = loader.vector("output_norm.weight", hidden);
  if (config.tied_embeddings) {
    weights.output = loader.output(weights.embedding, embedding, shape.vocabulary_begin, shape.vocabulary_end);
  } else {
    const MatrixView output = file.matrix("output.weight", config.vocabulary, hidden);
    weights.output = loader.linear({output.row_range(shape.vocabulary_begin, shape.vocabulary_end)});
  }
  weights.mapped_bytes = loader.mapped_bytes();
  return weights;
}

}  // namespace lmkit
