/* SPDX-License-Identifier: Apache-2.0
 *
 * "lmkit.parallel/1": who holds which part of the model, and how the parts add up.
 *
 * A group is all ranks together; a process runs some of them (local_ranks), each on a thread of its own that
 * the host starts. A rank's thread joins the group once and then calls the collectives, every rank the same
 * ones in the same order. Sums are taken in rank order, so a run can be repeated bit for bit.
 */
#ifndef LMKIT_ABI_PARALLEL_H
#define LMKIT_ABI_PARALLEL_H

#include <lmkit/abi/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LMKIT_PARALLEL_EXTENSION "lmkit.parallel/1"

/* What a dimension of the model is made of; one unit is never split. */
enum lmkit_role {
  LMKIT_ROLE_QUERY_HEADS = 0, /* unit: a query head. A rank holds the key/value heads its query heads read. */
  LMKIT_ROLE_FFN = 1,         /* unit: a run of FFN columns as long as the weights' quantisation block */
  LMKIT_ROLE_VOCABULARY = 2   /* unit: a row of the output matrix */
};

/* A contiguous run of units, end exclusive. Ranks in order cover all units without overlap. */
typedef struct lmkit_shard {
  int64_t begin;
  int64_t end;
} lmkit_shard;

typedef struct lmkit_ranks {
  int32_t size;        /* ranks in the group */
  int32_t local_begin; /* ranks this process runs: [local_begin, local_end) */
  int32_t local_end;
  lmkit_device device;
} lmkit_ranks;

typedef struct lmkit_parallel {
  uint32_t struct_size;
  lmkit_status (*create)(const lmkit_host* host, const lmkit_setting* settings, int32_t setting_count, void** group); /* [load-time] */
  void (*destroy)(void* group); /* after every rank left [load-time] */
  void (*ranks)(const void* group, lmkit_ranks* out); /* [any-thread] */
  /* The part of `units` that `rank` holds; may be empty. [any-thread] */
  lmkit_shard (*shard)(const void* group, int32_t rank, int32_t role, int64_t units);
  /* Bytes of communication buffers a rank needs, from the largest collective in elements of 4 bytes. [any-thread] */
  int64_t (*workspace_bytes)(const void* group, int64_t max_elements);
  /* Binds the calling thread to a rank. Waits until every rank has joined. [load-time] */
  lmkit_status (*join)(void* group, int32_t rank, void* workspace, int64_t workspace_bytes, void** self);
  void (*leave)(void* self); /* [load-time] */
  /* data[i] = sum over ranks of data[i], in rank order. [engine-thread, stream-ordered, capturable] */
  lmkit_status (*all_reduce_sum)(void* self, void* data, int64_t count, lmkit_dtype dtype, lmkit_stream* stream);
  /* Each of `rows` rows of `all` (row_bytes long) becomes the ranks' shards side by side, in rank order: rank r
   * gives shard_bytes[r] bytes a row, and its rows lie shard_bytes[r] apart in `mine`. shard_bytes is a host array
   * and sums to row_bytes. [engine-thread, stream-ordered, capturable] */
  lmkit_status (*all_gather)(void* self, const void* mine, void* all, int64_t rows, int64_t row_bytes,
                             const int64_t* shard_bytes, lmkit_stream* stream);
  /* Every rank's data becomes root's. [engine-thread, stream-ordered, capturable] */
  lmkit_status (*broadcast)(void* self, void* data, int64_t bytes, int32_t root, lmkit_stream* stream);
} lmkit_parallel;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LMKIT_ABI_PARALLEL_H */
