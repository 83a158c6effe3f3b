// SPDX-License-Identifier: Apache-2.0
//
// How decode attention is shared out: all steps (runs of tiles) of all (sequence, query tile) items form one line, and
// every warp of the grid takes an equal stretch of it, wherever that begins and ends. A ragged batch is as balanced as a
// uniform one, and the host need not know a length. A stretch covers parts of items; the parts of an item are added up in
// order (kv_merge.cuh), so results do not depend on timing.
//
// Plain arithmetic, host and device.
#pragma once

#include <lmkit/base/host_device.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

struct KvSplit {
  std::int32_t workers;  // that get a stretch
  std::int32_t steps;    // of the line

  // Stretches up to this long are made equal by leaving workers without: none takes longer, and there are fewer parts. An H200,
  // 16 sequences of 2K in bf16: 36 us instead of 39, one of 128K in int4: 43 instead of 45.
  static constexpr int short_stretch = 32;

  LMKIT_HD static KvSplit of(int all_workers, int steps) noexcept {
    const int longest = (steps + all_workers - 1) / all_workers;
    return {longest == 0 ? 1 : longest > short_stretch ? all_workers : (steps + longest - 1) / longest, steps};
  }
  LMKIT_HD int begin(int worker) const noexcept {
    return worker >= workers ? steps : static_cast<int>(static_cast<std::int64_t>(worker) * steps / workers);
  }
  // The worker whose stretch holds a step.
  LMKIT_HD int worker_of(int step) const noexcept { return static_cast<int>((static_cast<std::int64_t>(step + 1) * workers - 1) / steps); }
};

// The workspace of decode attention: slots of parts, each of (columns, part_row) floats, then counters of the blocks that have
// brought their part of an item, (sequences, items, warps of a block): a warp has its own queries. append sets a sequence's counters
// to 0, and attend leaves them so.
struct PartialSlots {
  std::int32_t all_workers, warps;  // of a block

  // Of a warp whose stretch goes on behind the part.
  LMKIT_HD std::int64_t of_warp(int worker) const noexcept { return worker; }
  // A block's first and last item may continue beyond its stretch.
  LMKIT_HD std::int64_t of_block(int block, bool starts_item) const noexcept { return all_workers + 2LL * block + starts_item; }
  LMKIT_HD std::int64_t count() const noexcept { return of_block(all_workers / warps, false); }
};

// A query's part: out (head_dim), maximum, sum, and two floats for alignment.
LMKIT_HD constexpr int part_row(int head_dim) noexcept { return head_dim + 4; }

}  // namespace lmkit::kernels::cuda
