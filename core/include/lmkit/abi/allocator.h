/* SPDX-License-Identifier: Apache-2.0
 *
 * "lmkit.allocator/1": how much memory the KV pool may take, and who gets its blocks.
 *
 * A policy is pure: it owns no memory and keeps no state about sequences, so its fairness can be tested with
 * numbers alone. The engine asks it once at load time for the pool's size and then before a sequence grows.
 */
#ifndef LMKIT_ABI_ALLOCATOR_H
#define LMKIT_ABI_ALLOCATOR_H

#include <lmkit/abi/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LMKIT_ALLOCATOR_EXTENSION "lmkit.allocator/1"

/* The ledger of one rank before the pool is cut. All in bytes unless said otherwise. */
typedef struct lmkit_memory_report {
  uint32_t struct_size;
  int32_t block_tokens;
  int64_t total;       /* memory the engine may use on this device */
  int64_t used;        /* everything in the ledger but the pool */
  int64_t block_bytes; /* one block, all layers */
  int64_t max_tokens;  /* tokens of the blocks that so many sequences hold at most */
} lmkit_memory_report;

/* A sequence that holds blocks. */
typedef struct lmkit_holder {
  int64_t id;
  int64_t arrival; /* smaller came earlier */
  int32_t blocks;
  int32_t reserved_;
} lmkit_holder;

/* free + held + cached == total. Cached blocks hold nobody's tokens and are given out after free ones. */
typedef struct lmkit_pool_state {
  uint32_t struct_size;
  int32_t total_blocks;
  int32_t free_blocks;
  int32_t cached_blocks;
  int32_t held_blocks;
  int32_t waiting; /* sequences that hold nothing yet, the asking one not counted */
  const lmkit_holder* holders; /* (holder_count) the running sequences in arrival order */
  int32_t holder_count;
} lmkit_pool_state;

/* A sequence asks for `blocks` more. */
typedef struct lmkit_demand {
  uint32_t struct_size;
  int32_t blocks;
  lmkit_holder sequence; /* what it holds now */
} lmkit_demand;

enum lmkit_verdict {
  LMKIT_GRANT = 0,
  LMKIT_WAIT = 1,   /* nothing now; the sequence keeps what it holds */
  LMKIT_PREEMPT = 2 /* take all blocks of `victim` (a holder's id, may be the asker's), then ask again */
};

typedef struct lmkit_decision {
  int32_t verdict; /* lmkit_verdict */
  int32_t reserved_;
  int64_t victim;
} lmkit_decision;

typedef struct lmkit_allocator {
  uint32_t struct_size;
  lmkit_status (*create)(const lmkit_host* host, const lmkit_setting* settings, int32_t setting_count, void** self); /* [load-time] */
  void (*destroy)(void* self); /* [load-time] */
  /* Bytes the pool may take, at most total - used. Below one block the engine refuses to start. [load-time] */
  lmkit_status (*kv_bytes)(const void* self, const lmkit_memory_report* report, int64_t* bytes);
  /* Must grant when free + cached suffice and nobody else holds or waits. O(1) unless blocks are short. [engine-thread] */
  lmkit_decision (*decide)(const void* self, const lmkit_pool_state* pool, const lmkit_demand* demand);
} lmkit_allocator;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LMKIT_ABI_ALLOCATOR_H */
