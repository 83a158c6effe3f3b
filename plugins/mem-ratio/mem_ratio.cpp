// SPDX-License-Identifier: Apache-2.0
#include "mem_ratio.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/builtin/whole_pool.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

namespace lmkit::mem_ratio {
namespace {

double share_of_one(double value, const char* option) {
  if (!(value > 0 && value <= 1))
    throw Error(ErrorKind::plugin, std::string(option) + "=" + std::to_string(value), "more than 0 and at most 1");
  return value;
}

bool others_hold(const PoolState& pool, std::int64_t asker) noexcept {
  return std::any_of(pool.holders, pool.holders + pool.holder_count, [&](const Holder& h) { return h.id != asker && h.blocks > 0; });
}

}  // namespace

std::int64_t parse_bytes(std::string_view text) {
  const auto refuse = [&] {
    throw Error(ErrorKind::plugin, "bytes=" + std::string(text), "a size of at least 1 byte, such as 512MiB, 1.5G or 4194304 (units K, M, G, T)");
  };
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) refuse();
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.size() == 3 && unit.ends_with("iB")) unit.remove_suffix(2);
  constexpr std::string_view powers = "KMGT";
  if (unit.size() > 1 || (unit.size() == 1 && powers.find(unit[0]) == powers.npos)) refuse();
  const double bytes = unit.empty() ? number : std::ldexp(number, 10 * static_cast<int>(powers.find(unit[0]) + 1));
  if (!(bytes >= 1 && bytes < 0x1p62)) refuse();
  return static_cast<std::int64_t>(bytes);
}

MemRatio::MemRatio(Settings settings) {
  if (settings.has("ratio") + settings.has("bytes") + settings.has("tokens") > 1)
    throw Error(ErrorKind::plugin, "more than one of ratio, bytes and tokens", "at most one of them: each sets the pool's size");
  ratio_ = share_of_one(settings.number("ratio", ratio_), "ratio");
  if (settings.has("bytes")) bytes_ = parse_bytes(settings.text("bytes", ""));
  tokens_ = settings.integer("tokens", 0);
  max_share_ = share_of_one(settings.number("max-share", max_share_), "max-share");
}

std::int64_t MemRatio::kv_bytes(const MemoryReport& report) const {
  const std::int64_t left = std::max<std::int64_t>(0, report.total - report.used);
  const std::int64_t room = left / report.block_bytes;  // blocks, as all below
  const auto blocks_of = [&](std::int64_t tokens) { return tokens / report.block_tokens + (tokens % report.block_tokens != 0); };
  const auto fitting = [&](std::int64_t blocks, const std::string& wish) {
    if (blocks > room)
      throw Error(ErrorKind::memory, wish + " is more than the " + std::to_string(left) + " bytes left after weights and workspace",
                  {}, "at most tokens=" + std::to_string(room * report.block_tokens) + " or bytes=" + std::to_string(left));
    return blocks;
  };
  const std::int64_t blocks = bytes_ > 0    ? fitting(bytes_ / report.block_bytes, "bytes=" + std::to_string(bytes_))
                              : tokens_ > 0 ? fitting(blocks_of(tokens_), "tokens=" + std::to_string(tokens_))
                                            : static_cast<std::int64_t>(static_cast<double>(left) * ratio_) / report.block_bytes;
  return std::min(blocks, blocks_of(report.max_tokens)) * report.block_bytes;
}

Decision MemRatio::decide(const PoolState& pool, const Demand& demand) const noexcept {
  const std::int64_t share = std::max<std::int64_t>(1, static_cast<std::int64_t>(pool.total_blocks * max_share_));
  const bool beyond = std::int64_t{demand.sequence.blocks} + demand.blocks > share;
  if (beyond && (pool.waiting > 0 || others_hold(pool, demand.sequence.id))) return {LMKIT_WAIT, 0, 0};
  return WholePool{}.decide(pool, demand);
}

}  // namespace lmkit::mem_ratio
