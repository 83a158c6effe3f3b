// SPDX-License-Identifier: Apache-2.0
//
// How attention is cut into tasks, and what it needs of the workspace.
//
// A tile is a few consecutive new tokens of one sequence with the query heads of one key/value head: its rows share
// every key and value. Along the KV length a row's result is summed in spans, fixed stretches of positions, and the
// spans are merged in order; so a tile may be given to one task or, where few tiles read long contexts, to several
// tasks (flash decoding) without changing a bit. What a row's spans are depends on its position alone.
//
// Workspace: scratch of each worker | partial results (max_partial_rows) | open pieces of split tiles | tasks
#pragma once

#include <lmkit/kernels/kv.hpp>
#include <lmkit/kernels/kv_pages.hpp>

#include <cstddef>
#include <cstdint>

namespace lmkit::kernels {
namespace {

struct KvTask {
  std::int32_t sequence, kv_head;
  std::int32_t first_token, tokens;     // of the step
  std::int32_t span_begin, span_end;    // the task's spans
  std::int32_t tile_begin, tile_end;    // the whole tile's
  std::int32_t partial;                 // the tile's first partial row, -1 when the task is the whole tile
  std::int32_t counter;                 // counts the tile's unfinished tasks
};

inline constexpr int kv_tile_rows = 96;           // rows of a prefill tile, or one token's query heads if these are more
inline constexpr int kv_partial_rows = 256;       // per worker
inline constexpr int kv_max_spans = 64;           // of a row
inline constexpr int kv_least_span = 256;         // positions

// Positions in a span of the row at `position`: 256, doubled until 64 spans reach the row.
LMKIT_HD constexpr std::int32_t kv_span(std::int32_t position) noexcept {
  std::int32_t span = kv_least_span;
  while (position / span >= kv_max_spans) span *= 2;
  return span;
}

LMKIT_HD constexpr std::int32_t least(std::int32_t a, std::int32_t b) noexcept { return a < b ? a : b; }
LMKIT_HD constexpr std::int32_t most(std::int32_t a, std::int32_t b) noexcept { return a > b ? a : b; }

LMKIT_HD constexpr int kv_group_rows(const KvLayer& layer) noexcept { return least(layer.group_size, layer.query_heads); }
LMKIT_HD constexpr int kv_tile_tokens(const KvLayer& layer) noexcept { return most(1, kv_tile_rows / kv_group_rows(layer)); }
LMKIT_HD constexpr int kv_max_rows(const KvLayer& layer) noexcept { return kv_tile_tokens(layer) * kv_group_rows(layer); }

// The shape of the workspace, in bytes.
struct KvWorkspace {
  std::int64_t worker, partials, counters, tasks, end;

  // max_tasks is only known from the limits; a launch needs the offsets alone.
  LMKIT_HD static KvWorkspace of(std::int64_t worker_bytes, std::int64_t partial_row_floats, int workers, std::int64_t max_tasks = 0) noexcept {
    KvWorkspace w{};
    w.worker = round_up(worker_bytes, 64);
    w.partials = w.worker * workers;
    w.counters = w.partials + round_up(partial_row_floats * 4 * kv_partial_rows * workers, 64);
    w.tasks = w.counters + round_up(4 * kv_partial_rows * workers, 64);
    w.end = w.tasks + round_up(max_tasks * static_cast<std::int64_t>(sizeof(KvTask)), 64);
    return w;
  }
};

// A tile holds at least one token and is cut where the span of its rows changes, which takes 16384 tokens once.
LMKIT_HD constexpr std::int64_t kv_max_tasks(const KvLayer& layer, const KvLimits& limits) noexcept {
  const std::int64_t tiles = limits.max_tokens / kv_tile_tokens(layer) + std::int64_t{3} * limits.max_sequences + limits.max_tokens / 4096;
  return tiles * layer.kv_heads + std::int64_t{kv_partial_rows} * most(limits.workers, 1);
}

// Calls tile(sequence, first_token, tokens, first_position) for the tiles of a step, those with most to read first
// within a sequence.
template <class Tile>
void for_each_tile(const KvLayer& layer, const KvPages& pages, Tile&& tile) noexcept {
  const std::int32_t step = kv_tile_tokens(layer);
  for (std::int32_t s = 0; s < pages.sequences; ++s) {
    const std::int32_t begin = pages.query_starts[s];
    const std::int32_t offset = pages.kv_lengths[s] - pages.query_starts[s + 1];  // position = token + offset
    for (std::int32_t end = pages.query_starts[s + 1]; end > begin;) {
      std::int32_t first = most(begin, end - step);
      while (kv_span(first + offset) != kv_span(end - 1 + offset)) ++first;
      tile(s, first, end - first, first + offset);
      end = first;
    }
  }
}

// Writes the tasks of a step and returns how many. `rows` of partial results may be used.
inline std::int32_t plan_tasks(const KvLayer& layer, const KvAttend& args, int workers, KvTask* tasks, std::int32_t* counters) noexcept {
  const auto begin_of = [&](std::int32_t position) { return args.window > 0 ? most(0, position - args.window + 1) : 0; };
  const auto cost = [&](std::int32_t tokens, std::int32_t position) {
    const std::int32_t blocks = (position + tokens - 1) / kv_block_tokens - begin_of(position) / kv_block_tokens + 1;
    return std::int64_t{tokens} * blocks;
  };
  std::int64_t total = 0;
  for_each_tile(layer, args.pages, [&](std::int32_t, std::int32_t, std::int32_t tokens, std::int32_t position) {
    total += cost(tokens, position) * layer.kv_heads;
  });
  const std::int64_t share = total / (std::int64_t{4} * workers) + 1;  // four shares a worker even out what they cost

  std::int32_t count = 0, split = 0, partial = 0;
  for_each_tile(layer, args.pages, [&](std::int32_t sequence, std::int32_t first, std::int32_t tokens, std::int32_t position) {
    const std::int32_t span = kv_span(position);
    const std::int32_t begin = begin_of(position) / span, end = (position + tokens - 1) / span + 1;
    for (std::int32_t head = 0; head < layer.kv_heads; ++head) {
      const std::int32_t rows = tokens * (layer.first_query(head + 1) - layer.first_query(head));
      if (rows == 0) continue;
      std::int64_t pieces = (cost(tokens, position) + share - 1) / share;
      if (pieces > end - begin) pieces = end - begin;
      const bool fits = partial + rows * (end - begin) <= kv_partial_rows * workers;
      if (workers == 1 || pieces < 2 || !fits) {
        tasks[count++] = {sequence, head, first, tokens, begin, end, begin, end, -1, -1};
        continue;
      }
      for (std::int64_t p = 0; p < pieces; ++p)
        tasks[count++] = {sequence, head, first, tokens, static_cast<std::int32_t>(begin + p * (end - begin) / pieces),
                          static_cast<std::int32_t>(begin + (p + 1) * (end - begin) / pieces), begin, end, partial, split};
      counters[split++] = static_cast<std::int32_t>(pieces);
      partial += rows * (end - begin);
    }
  });
  return count;
}

}  // namespace
}  // namespace lmkit::kernels
