/* SPDX-License-Identifier: Apache-2.0
 *
 * "lmkit.kv/1": how keys and values are stored in pages and read back. One instance serves one layer shape
 * on one rank. Each slot is a whole launch; nothing is ever asked for a single value.
 *
 * Pages. The cache is made of blocks of block_tokens tokens. A block holds every layer of its group; the part
 * of one layer starts at
 *     base + block_id * block_stride + layer_offset        (bytes; 64-byte aligned on the CPU, 256 on CUDA)
 * and is block_bytes() long. What lies inside belongs to the backend alone. Token p of a sequence is slot
 * p % block_tokens of block block_table[p / block_tokens].
 *
 * Ragged batch. Sequence s owns the tokens query_starts[s] .. query_starts[s + 1] - 1 of the step, and has
 * kv_lengths[s] tokens in the cache once they are appended, so its i-th new token stands at position
 *     kv_lengths[s] - (query_starts[s + 1] - query_starts[s]) + i.
 */
#ifndef LMKIT_ABI_KV_H
#define LMKIT_ABI_KV_H

#include <lmkit/abi/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LMKIT_KV_EXTENSION "lmkit.kv/1"

/* One attention layer as this rank holds it. Heads are rank-local and contiguous; local query head h reads
 * local key/value head (h + group_offset) / group_size. group_offset is not 0 only where a rank's cut falls
 * inside a group, so the first and last groups of a rank may be partial. */
typedef struct lmkit_kv_shape {
  uint32_t struct_size;
  lmkit_device device;
  lmkit_dtype dtype; /* of q, k, v and out */
  int32_t query_heads;
  int32_t kv_heads;
  int32_t group_size;
  int32_t group_offset;
  int32_t head_dim;
  int32_t block_tokens;
} lmkit_kv_shape;

/* The largest step the engine will ever ask for. */
typedef struct lmkit_kv_limits {
  uint32_t struct_size;
  int32_t max_tokens;    /* new tokens in a step, all sequences together */
  int32_t max_sequences; /* sequences in a step */
  int32_t max_context;   /* tokens of one sequence in the cache */
  int32_t workers;       /* threads of a CPU stream; 0 on CUDA */
} lmkit_kv_limits;

/* Pages of one layer and the sequences of the step. Arrays are on the shape's device, written before the step's first launch. */
typedef struct lmkit_kv_pages {
  uint32_t struct_size;
  int32_t sequences;
  void* base;
  int64_t block_stride; /* bytes from one block to the next */
  int64_t layer_offset; /* bytes from a block's start to this layer's part */
  /* (sequences, block_table_stride) block ids. Where every layer has a window, those before the block that precedes the oldest token
     still visible are any: what they held was given back. */
  const int32_t* block_tables;
  int64_t block_table_stride;
  const int32_t* query_starts;   /* (sequences + 1) */
  const int32_t* kv_lengths;     /* (sequences), new tokens included */
  const int32_t* token_sequence; /* (tokens) the sequence each new token belongs to */
} lmkit_kv_pages;

enum lmkit_rope_pairs {
  LMKIT_ROPE_NONE = 0,
  LMKIT_ROPE_ADJACENT = 1, /* rotates (x[2i], x[2i+1]): GGUF Llama weights */
  LMKIT_ROPE_HALVES = 2    /* rotates (x[i], x[i + rotary_dim/2]): Hugging Face weights */
};

/* Rotates q and k by position (RoFormer, arXiv:2104.09864), stores k and v. q is changed in place and is what
 * attend must be given; a backend may turn it further (a Hadamard rotation, say). k and v are read only. */
typedef struct lmkit_kv_append_args {
  uint32_t struct_size;
  int32_t tokens;
  void* q;           /* (tokens, query_heads, head_dim), rows q_stride elements apart */
  const void* k;     /* (tokens, kv_heads, head_dim), rows kv_stride elements apart */
  const void* v;     /* like k */
  int64_t q_stride;
  int64_t kv_stride;
  int32_t rope_pairs; /* lmkit_rope_pairs */
  int32_t rotary_dim; /* even, <= head_dim; the rest of a head passes unchanged */
  const float* rope_table; /* (max_context, rotary_dim / 2, 2) cosine and sine */
  lmkit_kv_pages pages;
  void* workspace; /* workspace_bytes(limits) */
} lmkit_kv_append_args;

/* Causal attention of the step's tokens over their sequences' pages, the step's own included.
 *   out = softmax(mask(cap * tanh(scale * q.k / cap))) v         (soft_cap 0: no cap) */
typedef struct lmkit_kv_attend_args {
  uint32_t struct_size;
  int32_t tokens;
  const void* q; /* as append left it */
  void* out;     /* (tokens, query_heads, head_dim), rows out_stride elements apart */
  int64_t q_stride;
  int64_t out_stride;
  float scale;
  float soft_cap;
  int32_t window;            /* a token sees itself and the window - 1 tokens before it; 0: all */
  int32_t max_query_tokens;  /* the most new tokens of one sequence in this step */
  int32_t max_kv_length;     /* the largest of kv_lengths */
  lmkit_kv_pages pages;
  void* workspace; /* the one append was given: what that left in it may be wanted */
} lmkit_kv_attend_args;

/* Copies whole layer parts from block to block (copy-on-write of shared blocks). */
typedef struct lmkit_kv_copy_args {
  uint32_t struct_size;
  int32_t count;
  const int32_t* source; /* (count) block ids */
  const int32_t* target; /* (count) block ids; none is a source */
  void* base;
  int64_t block_stride;
  int64_t layer_offset;
} lmkit_kv_copy_args;

typedef struct lmkit_kv {
  uint32_t struct_size;
  /* Fails if the shape is not supported, saying what is. [load-time] */
  lmkit_status (*create)(const lmkit_host* host, const lmkit_kv_shape* shape, const lmkit_setting* settings,
                         int32_t setting_count, void** self);
  void (*destroy)(void* self); /* [load-time] */
  /* Bytes of one layer's part of a block: exact, a multiple of 64. [any-thread] */
  int64_t (*block_bytes)(const void* self);
  int64_t (*workspace_bytes)(const void* self, const lmkit_kv_limits* limits); /* [any-thread] */
  lmkit_status (*append)(void* self, const lmkit_kv_append_args* args, lmkit_stream* stream); /* [engine-thread, stream-ordered, capturable] */
  lmkit_status (*attend)(void* self, const lmkit_kv_attend_args* args, lmkit_stream* stream); /* [engine-thread, stream-ordered, capturable] */
  lmkit_status (*copy_blocks)(void* self, const lmkit_kv_copy_args* args, lmkit_stream* stream); /* [engine-thread, stream-ordered, capturable] */
} lmkit_kv;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LMKIT_ABI_KV_H */
