// SPDX-License-Identifier: Apache-2.0
//
// The memory plan: what a pipeline takes, to the byte, before anything is loaded. The engine allocates exactly this at
// start and nothing afterwards, and `lmkit plan` prints the same ledger. All sizes in bytes unless said otherwise.
#pragma once

#include <lmkit/abi/plugin.h>

#include <cstdint>
#include <vector>

namespace lmkit {

// The largest work the engine will accept.
struct EngineLimits {
  int threads = 0;            // CPU threads of all ranks together; 0: all this process may use
  int max_sequences = 16;     // in one step
  int session_len = 0;        // tokens of one sequence; 0: the model's context
  int max_batch_tokens = 0;   // new tokens in one step; 0: 512 on a CPU, 4096 on a GPU
  bool eager = false;         // on a GPU: steps are launched kernel by kernel, not recorded as CUDA graphs
  std::int64_t device_memory = 0;  // the most the ledger may use, all local ranks together; 0: what is available
};

struct RankLedger {
  std::int64_t in_use = 0;          // of the device before anything is loaded: this process's context, other programs
  std::int64_t runtime = 0;         // the device's libraries, kernels and graphs; not allocated by the engine
  std::int64_t weights_mapped = 0;  // read where they lie in the file
  std::int64_t weights_packed = 0;  // copied in the kernels' order
  std::int64_t activations = 0;     // of the largest step, with its tables
  std::int64_t workspace = 0;       // scratch of gemm and attention
  std::int64_t logits = 0;
  std::int64_t communication = 0;
  std::int64_t kv_pool = 0;
  std::int64_t kv_block_bytes = 0;  // one block, all layers

  std::int64_t fixed() const noexcept {
    return in_use + runtime + weights_mapped + weights_packed + activations + workspace + logits + communication;
  }
  std::int64_t arena() const noexcept { return fixed() - in_use - runtime - weights_mapped + kv_pool; }  // allocated by the engine
  std::int64_t total() const noexcept { return fixed() + kv_pool; }
};

struct Ledger {
  lmkit_device device = LMKIT_CPU;
  std::vector<RankLedger> ranks;  // this process's
  std::int64_t memory = 0;        // what one rank may use, with what is in use already
  int block_tokens = 64;
  int blocks = 0;        // in each rank's pool
  int session_len = 0;   // tokens of one sequence
  std::int64_t kv_tokens() const noexcept { return std::int64_t{blocks} * block_tokens; }
};

}  // namespace lmkit
