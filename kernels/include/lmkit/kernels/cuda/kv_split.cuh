// SPDX-License-Identifier: Apache-2.0
//
// How decode attention is shared out: all steps (runs of tiles) of all (sequence, query tile) items form one line, and
// every warp of the grid takes an equal stretch of it, wherever that begins and ends. A ragged batch is as balanced as a
// uniform one, and the host need not know a length. A stretch covers parts of items; a part's result goes to a slot of
// its own, and the merge adds up an item's slots in order, so results do not depend on timing.
//
// Plain arithmetic, host and device.
#pragma once

#include <lmkit/base/host_device.hpp>

#include <cstdint>

namespace lmkit::kernels::cuda {

struct KvSplit {
  std::int32_t workers;  // that get a stretch
  std::int32_t steps;    // of the line

  // A worker with very little to do costs more in merging than it saves.
  static constexpr int least_steps = 2;

  LMKIT_HD static KvSplit of(int all_workers, int steps) noexcept {
    const int useful = (steps + least_steps - 1) / least_steps;
    return {useful < all_workers ? useful : all_workers, steps};
  }
  LMKIT_HD int begin(int worker) const noexcept {
    return worker >= workers ? steps : static_cast<int>(static_cast<std::int64_t>(worker) * steps / workers);
  }
  // The worker whose stretch holds a step.
  LMKIT_HD int worker_of(int step) const noexcept { return static_cast<int>((static_cast<std::int64_t>(step + 1) * workers - 1) / steps); }
};

// Slots of partial results: a worker's first and last item may continue beyond its stretch (two slots each), an item
// that lies within one stretch has the slot of the item.
struct PartialSlots {
  LMKIT_HD static std::int64_t of_part(int worker, bool starts_item) noexcept { return 2LL * worker + starts_item; }
  LMKIT_HD static std::int64_t of_item(int all_workers, int item) noexcept { return 2LL * all_workers + item; }
  LMKIT_HD static std::int64_t count(int all_workers, std::int64_t items) noexcept { return 2LL * all_workers + items; }
};

}  // namespace lmkit::kernels::cuda
