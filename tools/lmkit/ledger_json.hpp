// SPDX-License-Identifier: Apache-2.0
//
// The memory ledger as it stands in --json output; all sizes in bytes.
#pragma once

#include <lmkit/engine/memory_plan.hpp>

#include <boost/json.hpp>

namespace lmkit::cli {

inline boost::json::object json_of(const Ledger& ledger) {
  boost::json::array ranks;
  for (const RankLedger& rank : ledger.ranks)
    ranks.push_back({{"in_use", rank.in_use}, {"runtime", rank.runtime}, {"weights_mapped", rank.weights_mapped}, {"weights_packed", rank.weights_packed},
                     {"activations", rank.activations}, {"workspace", rank.workspace}, {"logits", rank.logits}, {"communication", rank.communication},
                     {"kv_pool", rank.kv_pool}, {"kv_block_bytes", rank.kv_block_bytes}, {"total", rank.total()}});
  return {{"ranks", ranks}, {"memory", ledger.memory}, {"block_tokens", ledger.block_tokens}, {"blocks", ledger.blocks},
          {"session_len", ledger.session_len}, {"kv_tokens", ledger.kv_tokens()}};
}

}  // namespace lmkit::cli
