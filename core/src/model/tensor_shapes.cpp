// SPDX-License-Identifier: Apache-2.0
#include <lmkit/model/tensor_shapes.hpp>

#include <fmt/format.h>

namespace lmkit {

TensorShapes tensor_shapes(const ModelConfig& c) {
  const std::int64_t hidden = c.hidden, ffn = c.ffn, dim = c.head_dim;
  const std::int64_t queries = c.query_heads * dim, keys = c.kv_heads * dim;
  TensorShapes shapes = {{"token_embd.weight", {c.vocabulary, hidden}}, {"output_norm.weight", {1, hidden}}};
  if (!c.tied_embeddings) shapes["output.weight"] = {c.vocabulary, hidden};
  for (int i = 0; i < c.layers; ++i) {
    const auto add = [&](const char* part, std::int64_t rows, std::int64_t cols) { shapes[fmt::format("blk.{}.{}", i, part)] = {rows, cols}; };
    add("attn_norm.weight", 1, hidden);
    add("attn_q.weight", queries, hidden);
    add("attn_k.weight", keys, hidden);
    add("attn_v.weight", keys, hidden);
    if (c.qkv_bias) add("attn_q.bias", 1, queries), add("attn_k.bias", 1, keys), add("attn_v.bias", 1, keys);
    if (c.head_norms) add("attn_q_norm.weight", 1, dim), add("attn_k_norm.weight", 1, dim);
    add("attn_output.weight", hidden, queries);
    add("ffn_norm.weight", 1, hidden);
    add("ffn_gate.weight", ffn, hidden);
    add("ffn_up.weight", ffn, hidden);
    add("ffn_down.weight", hidden, ffn);
  }
  return shapes;
}

std::int64_t parameter_count(const TensorShapes& shapes) noexcept {
  std::int64_t count = 0;
  for (const auto& [name, shape] : shapes) count += shape.rows * shape.cols;
  return count;
}

}  // namespace lmkit
