/* SPDX-License-Identifier: Apache-2.0
 *
 * lmkit plugin ABI: how a shared object introduces itself, and what the host offers it.
 *
 * A plugin exports one data symbol, `lmkit_plugin_entry`. Everything in it is constant data, so the
 * host can list and inspect a plugin by reading its ELF file, without running any of its code.
 * `extension` is the only function in it: it maps an extension id ("lmkit.kv/1") to a constant table
 * declared in kv.h, parallel.h or allocator.h. Third parties name their extensions in their own domain.
 *
 * Rules for the whole ABI
 *  - A plugin is loaded if and only if its abi_major equals the host's and its abi_minor is not greater.
 *  - Tables and arguments start with struct_size and grow only at their end; a reader copies the prefix it knows. Small structs
 *    without it (settings, shards, holders, decisions, ranks) are passed in arrays or by value, and never change.
 *  - No C++ type, exception, allocator or ownership crosses. Strings are UTF-8, NUL-terminated, constant.
 *  - Slots return lmkit_status; 0 is success. On failure the plugin first calls host->fail with the reason.
 *  - Who may call a slot stands in brackets behind it:
 *      [any-thread]      at any time, from any thread
 *      [load-time]       from one thread, before the first step
 *      [engine-thread]   from the thread that runs the rank's steps
 *      [stream-ordered]  enqueues work on the stream and must not synchronise (on a CPU: done at return)
 *      [capturable]      no allocation, no host callback: a CUDA graph may record it
 *
 * C11 and C++20, <stdint.h> and <stddef.h> only.
 */
#ifndef LMKIT_ABI_PLUGIN_H
#define LMKIT_ABI_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LMKIT_ABI_MAJOR 1
#define LMKIT_ABI_MINOR 0

typedef int32_t lmkit_status; /* an lmkit_status_code */

enum lmkit_status_code {
  LMKIT_OK = 0,
  LMKIT_INVALID_ARGUMENT = 1, /* a shape, option or value the callee does not support */
  LMKIT_OUT_OF_MEMORY = 2,
  LMKIT_DEVICE_ERROR = 3,
  LMKIT_INTERNAL_ERROR = 4
};

typedef int32_t lmkit_dtype; /* an lmkit_dtype_code: the element type of a dense array */

enum lmkit_dtype_code { LMKIT_F32 = 0, LMKIT_F16 = 1, LMKIT_BF16 = 2, LMKIT_I32 = 3, LMKIT_U8 = 4 };

typedef int32_t lmkit_device; /* an lmkit_device_code */

enum lmkit_device_code { LMKIT_CPU = 0, LMKIT_CUDA = 1 };

/* Where work runs in order. On CUDA a CUstream; on the CPU the host's task pool, used only through
 * host->parallel_for. Never null on the CPU. Owned by the host. */
typedef struct lmkit_stream_opaque lmkit_stream;

/* One share of a parallel loop. `worker` < host->workers(stream) and no two shares that run at the same
 * time have the same worker: use it to index scratch. Must not throw or block. */
typedef void (*lmkit_task)(void* context, int32_t index, int32_t worker);

/* What the host offers. Lives as long as the process. */
typedef struct lmkit_host {
  uint32_t struct_size;
  uint16_t abi_major;
  uint16_t abi_minor;
  /* Records why the slot that is running now fails; `reason` is copied. [any-thread] */
  void (*fail)(const char* reason);
  /* Runs task(context, 0..count-1, worker) on the stream's threads and returns when all are done.
   * Not re-entrant: a task must not call it. [engine-thread] CPU streams only. */
  void (*parallel_for)(lmkit_stream* stream, int32_t count, lmkit_task task, void* context);
  /* Threads behind a CPU stream, at least 1. [any-thread] */
  int32_t (*workers)(lmkit_stream* stream);
} lmkit_host;

enum lmkit_option_type { LMKIT_OPTION_BOOL = 0, LMKIT_OPTION_INT = 1, LMKIT_OPTION_FLOAT = 2, LMKIT_OPTION_STRING = 3 };

/* One option of a plugin, as published to `lmkit plugin inspect` and checked by the CLI.
 * Bounds hold for INT and FLOAT; choices ("a|b|c", or null) for STRING. */
typedef struct lmkit_option {
  uint32_t struct_size;
  int32_t type; /* lmkit_option_type */
  const char* name;
  const char* help;
  const char* default_value; /* null: unset unless given */
  double minimum;
  double maximum;
  const char* choices;
} lmkit_option;

/* An option's value as it reaches create(): checked against the published option, in its spelling:
 * BOOL is "true" or "false", numbers are as strtod reads them. */
typedef struct lmkit_setting {
  const char* name;
  const char* value;
} lmkit_setting;

/* What the binary was built from and for; shown by `lmkit plugin inspect`. */
typedef struct lmkit_build {
  uint32_t struct_size;
  const char* compiler;   /* "g++ 12.2.0" */
  const char* cpu_isas;   /* "baseline avx2 avx512": the variants inside, chosen at run time */
  const char* cuda_archs; /* "80 90a", or "" without a CUDA half */
} lmkit_build;

/* The one exported symbol. Constant, statically initialised. */
typedef struct lmkit_plugin {
  uint32_t struct_size;
  uint16_t abi_major;
  uint16_t abi_minor;
  const char* id;      /* = the folder, file and CLI name: "kv-int4" */
  const char* version; /* "1.0.0" */
  const char* summary; /* one line */
  const char* licence; /* SPDX expression */
  const lmkit_build* build;
  const char* const* extensions; /* ids that `extension` answers, null-terminated */
  const lmkit_option* const* options; /* null-terminated */
  /* The constant table for an id, or null. [any-thread] */
  const void* (*extension)(const char* id);
} lmkit_plugin;

#define LMKIT_PLUGIN_SYMBOL "lmkit_plugin_entry"

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LMKIT_ABI_PLUGIN_H */
