// SPDX-License-Identifier: Apache-2.0
//
// lmkit plan: the memory ledger of a pipeline, to the byte, without loading any weights.
#include "commands.hpp"
#include "composition.hpp"
#include "ledger_json.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>

#include <fmt/format.h>

#include <utility>

namespace lmkit::cli {
namespace {

constexpr std::pair<const char*, std::int64_t RankLedger::*> rows[] = {
    {"in use already", &RankLedger::in_use},          {"device runtime", &RankLedger::runtime},
    {"weights, mapped", &RankLedger::weights_mapped}, {"weights, packed", &RankLedger::weights_packed},
    {"activations", &RankLedger::activations},        {"workspace", &RankLedger::workspace},
    {"logits", &RankLedger::logits},                  {"communication", &RankLedger::communication},
    {"KV pool", &RankLedger::kv_pool}};

void print_ledger(const Ledger& ledger) {
  std::string out = fmt::format("{:<18}", "");
  for (std::size_t rank = 0; rank < ledger.ranks.size(); ++rank) out += fmt::format("{:>14}", fmt::format("rank {}", rank));
  for (const auto& [name, part] : rows) {
    out += fmt::format("\n{:<18}", name);
    for (const RankLedger& rank : ledger.ranks) out += fmt::format("{:>14}", bytes_for_people(rank.*part));
  }
  out += fmt::format("\n{:<18}", "total");
  for (const RankLedger& rank : ledger.ranks) out += fmt::format("{:>14}", bytes_for_people(rank.total()));
  const std::int64_t block = ledger.ranks.front().kv_block_bytes;
  out += fmt::format("\n\n{} of {} a rank may use\n{} blocks of {} tokens = {} tokens of KV, {} bytes a token; sequences of up to {} tokens\n",
                     bytes_for_people(ledger.ranks.front().total()), bytes_for_people(ledger.memory), ledger.blocks, ledger.block_tokens,
                     ledger.kv_tokens(), block / ledger.block_tokens, ledger.session_len);
  print(out);
}

}  // namespace

int plan_command(const Arguments& arguments) {
  if (!arguments.operands().empty()) throw Error(ErrorKind::usage, "lmkit plan takes no operands", {}, "--model-path MODEL");
  Composed composed = compose(arguments);
  const auto model = open_named_model(arguments);
  choose_device(composed, arguments, *model);
  const Ledger ledger = AnyPipeline::plan(*model, composed.parts, limits_of(arguments, 1));
  if (arguments.flag("json")) {
    print(boost::json::serialize(boost::json::object{{"schema", "lmkit.plan/1"}, {"model", model->config().name},
                                                     {"pipeline", composed.description()}, {"ledger", json_of(ledger)}}) + "\n");
    return 0;
  }
  say(startup_line(composed, ledger));
  print_ledger(ledger);
  return 0;
}

}  // namespace lmkit::cli
