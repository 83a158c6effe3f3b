// SPDX-License-Identifier: Apache-2.0
//
// lmkit bench engine: prefill and decode speed by depth, batch and KV type, against what this machine's memory can do.
//
// The engine is stepped by hand, so that exactly the steps in question are timed. A decode step of one sequence reads
// every weight once and the sequence's KV pages once; that many bytes times the rate, over the measured read bandwidth, is
// the fraction of the limit.
#include "bench.hpp"
#include "composition.hpp"
#include "ledger_json.hpp"
#include "machine.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/builtin/cuda.hpp>
#include <lmkit/kernels/cpu_isa.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace lmkit::cli {
namespace {

// A prompt without meaning: what tokens say does not change what they cost.
std::vector<TokenId> prompt_of(std::int64_t length, int vocabulary) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(length));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>((1000 + i * 7919) % static_cast<std::size_t>(vocabulary));
  return tokens;
}

class Stepper {
 public:
  Stepper(Engine& engine, int vocabulary) : engine_(engine), vocabulary_(vocabulary) {}

  double prefill(std::int64_t tokens) {
    submit(tokens, 1);
    const auto start = Clock::now();
    while (engine_.has_work()) step();
    return static_cast<double>(tokens) / seconds_since(start);
  }

  struct Decoded {
    double rate = 0;  // tokens per second of all sequences together
    double idle = 0;  // seconds of the device between two steps
  };
  Decoded decode(std::int64_t depth, std::int64_t batch, std::int64_t steps) {
    for (std::int64_t i = 0; i < batch; ++i) submit(std::max<std::int64_t>(depth, 1), static_cast<int>(1'000'000'000));
    // until every sequence has its first token, each is read to the end of its prompt
    while (engine_.stats().prompt_tokens - read_before_ < batch * std::max<std::int64_t>(depth, 1)) step();
    for (int i = 0; i < 3; ++i) step();  // warm, and full steps in flight
    const std::int64_t generated = engine_.stats().generated_tokens;
    const double idle = engine_.stats().device_idle_seconds;
    const auto start = Clock::now();
    for (std::int64_t i = 0; i < steps; ++i) step();
    const double seconds = seconds_since(start);
    if (engine_.stats().generated_tokens - generated != steps * batch)
      throw Error(ErrorKind::runtime, fmt::format("{} tokens in {} steps of {} sequences", engine_.stats().generated_tokens - generated, steps, batch),
                  "one of each sequence in each step", "a larger --session-len or --device-memory-limit, or smaller batches");
    const Decoded decoded{static_cast<double>(steps * batch) / seconds, (engine_.stats().device_idle_seconds - idle) / static_cast<double>(steps)};
    for (const RequestId id : ids_) engine_.cancel(id);
    while (engine_.has_work()) step();
    return decoded;
  }

 private:
  void submit(std::int64_t tokens, int max_tokens) {
    if (!engine_.has_work()) {
      ids_.clear();
      read_before_ = engine_.stats().prompt_tokens;
    }
    Request request;
    request.prompt = prompt_of(tokens, vocabulary_);
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    ids_.push_back(engine_.submit(std::move(request)));
  }

  void step() {
    engine_.step();
    for (const Event& event : engine_.take_events())
      if (event.finish == Finish::error) throw Error(ErrorKind::runtime, event.error);
  }

  Engine& engine_;
  int vocabulary_;
  std::vector<RequestId> ids_;
  std::int64_t read_before_ = 0;
};

struct Row {
  bool prefill = false;
  std::int64_t tokens = 0;  // of the prompt, or the depth
  std::int64_t batch = 1;
  std::string kv = {}, pipeline = {};
  double rate = 0;      // tokens per second
  double fraction = 0;  // of the read bandwidth; decode only
  double idle = 0;      // seconds of a GPU between two steps; decode only
};

// Bytes a decode step of `batch` sequences reads, all ranks together.
double bytes_of_step(const Ledger& ledger, std::int64_t weights, std::int64_t depth, std::int64_t batch) {
  double kv = 0;
  for (const RankLedger& rank : ledger.ranks)
    kv += static_cast<double>(rank.kv_block_bytes) / ledger.block_tokens * static_cast<double>(depth * batch);
  return static_cast<double>(weights) + kv;
}

// Weights that a step reads: all of them, but of the embedding only when it is also the output matrix. On a GPU they are 16-bit.
std::int64_t weights_read(const ModelFile& model, bool on_gpu) {
  const ModelConfig& config = model.config();
  std::int64_t bytes = weight_bytes(model, config.tied_embeddings ? "token_embd.weight" : "output.weight", on_gpu);
  for (int layer = 0; layer < config.layers; ++layer) bytes += layer_weight_bytes(model, layer, on_gpu);
  return bytes;
}

std::string table_of(const std::vector<Row>& rows) {
  const bool queued = std::ranges::any_of(rows, [](const Row& row) { return row.idle > 0; });
  std::string out = fmt::format("KV        what             batch     tok/s   of read bandwidth{}\n", queued ? "   GPU idle between steps" : "");
  for (const Row& row : rows) {
    out += fmt::format("{:<8}  {:<15}  {:>5}  {:>8.1f}   {}", row.kv, fmt::format("{} {}", row.prefill ? "prefill" : "decode at", row.tokens),
                       row.batch, row.rate, row.prefill ? "" : fmt::format("{:.0f} %", row.fraction * 100));
    out += row.idle > 0 ? fmt::format("{:>23.1f} us\n", row.idle * 1e6) : "\n";
  }
  return out;
}

boost::json::object json_of(const Row& row) {
  boost::json::object out{{"kv", row.kv}, {"pipeline", row.pipeline}, {"kind", row.prefill ? "prefill" : "decode"},
                          {row.prefill ? "tokens" : "depth", row.tokens}, {"batch", row.batch}, {"tokens_per_second", row.rate}};
  if (!row.prefill) out["bandwidth_fraction"] = row.fraction, out["idle_seconds_between_steps"] = row.idle;
  return out;
}

}  // namespace

int bench_engine(const Arguments& arguments) try {
  catch_interrupts();
  const auto depths = arguments.wholes("depths"), batches = arguments.wholes("batches"), prompts = arguments.wholes("prefill");
  const std::int64_t steps = *arguments.whole("steps"), repeats = *arguments.whole("repeats");
  const auto largest = [](const std::vector<std::int64_t>& values) { return *std::max_element(values.begin(), values.end()); };

  const bool on_gpu = compose(arguments, kv_types(arguments).front()).on_gpu;
  EngineLimits limits = limits_of(arguments, static_cast<int>(largest(batches)));
  // The first of a batch decode while the last of it still read their prompts.
  const std::int64_t tokens_at_once = std::max<std::int64_t>(1, arguments.whole("max-batch-tokens").value_or(on_gpu ? 4096 : 512) - largest(batches));
  const std::int64_t ahead = largest(batches) > 1 ? largest(batches) * largest(depths) / tokens_at_once + largest(batches) : 0;
  if (!arguments.given("session-len")) limits.session_len = static_cast<int>(std::max(largest(depths) + ahead + steps + 8, largest(prompts) + 8));
  const auto model = open_named_model(arguments);
  if (!arguments.given("session-len") && limits.session_len > model->config().max_context)
    throw Error(ErrorKind::usage, fmt::format("sequences of {} tokens", limits.session_len), fmt::format("at most the model's context of {}", model->config().max_context),
                "smaller --depths, --prefill or --steps");
  const std::int64_t weights = weights_read(*model, on_gpu);
  progress("measuring read bandwidth");
  const double bandwidth = on_gpu ? cuda_library().read_bandwidth(0, std::int64_t{2} << 30) : read_bandwidth(limits.threads, weights);

  std::vector<Row> rows;
  double load = 0, first_token = 0;
  std::string device;
  for (const std::string& kv : kv_types(arguments)) {
    Composed composed = compose(arguments, kv);
    const std::string description = composed.description(), name = composed.kv;
    const auto start = Clock::now();
    const auto pipeline = start_pipeline(arguments, model, composed, limits);
    device = composed.device;
    const double loaded = seconds_since(start);
    Stepper stepper(pipeline->engine(), model->config().vocabulary);
    stepper.prefill(1);
    if (rows.empty()) load = loaded, first_token = seconds_since(start);
    const auto measure = [&](Row row, auto once) {
      std::vector<double> rates, idles;
      for (std::int64_t i = 0; i < repeats; ++i) {
        if (interrupts() > 0) throw Interrupted{};
        progress(fmt::format("{}: {} {}, batch {}, {} of {}", name, row.prefill ? "prefill" : "decode at", row.tokens, row.batch, i + 1, repeats));
        const Stepper::Decoded outcome = once();
        rates.push_back(outcome.rate), idles.push_back(outcome.idle);
      }
      row.rate = median(rates), row.idle = median(idles);
      row.kv = kv.empty() ? name : kv;
      row.pipeline = description;
      if (!row.prefill)
        row.fraction = row.rate / static_cast<double>(row.batch) *
                       bytes_of_step(pipeline->ledger(), weights, row.tokens + steps / 2, row.batch) / bandwidth;
      rows.push_back(std::move(row));
    };
    for (const std::int64_t tokens : prompts) measure({.prefill = true, .tokens = tokens}, [&] { return Stepper::Decoded{.rate = stepper.prefill(tokens)}; });
    for (const std::int64_t batch : batches)
      for (const std::int64_t depth : depths)
        measure({.tokens = depth, .batch = batch}, [&] { return stepper.decode(depth, batch, steps); });
    end_progress();
  }

  const Machine machine = this_machine();
  if (arguments.flag("json")) {
    boost::json::array results;
    for (const Row& row : rows) results.push_back(json_of(row));
    print(boost::json::serialize(boost::json::object{
              {"schema", "lmkit.bench_engine/1"}, {"model", model->config().name}, {"cpu", machine.cpu}, {"device", device}, {"threads", limits.threads},
              {"isa", kernels::name_of(kernels::cpu_isa())}, {"read_bandwidth", bandwidth}, {"weight_bytes_per_step", weights},
              {"load_seconds", load}, {"start_to_first_token_seconds", first_token}, {"repeats", repeats}, {"steps", steps}, {"results", results}}) + "\n");
    return 0;
  }
  const std::string where = on_gpu ? device : fmt::format("{}, {} threads, {} kernels", machine.cpu, limits.threads, kernels::name_of(kernels::cpu_isa()));
  print(fmt::format("{}\nread bandwidth {:.1f} GB/s; a step reads {} of weights\nloaded in {:.0f} ms, first token {:.0f} ms after start\nmedian of {} measurements of {} steps\n\n{}",
                    where, bandwidth / 1e9, bytes_for_people(weights), load * 1e3,
                    first_token * 1e3, repeats, steps, table_of(rows)));
  return 0;
} catch (const Interrupted&) {
  end_progress();
  return interrupted_exit_code;
}

}  // namespace lmkit::cli
