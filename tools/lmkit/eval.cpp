// SPDX-License-Identifier: Apache-2.0
//
// lmkit eval ppl: perplexity of a text, as llama.cpp defines it, so that the numbers can be compared.
//
// The text is tokenised in one piece, behind a begin-of-sequence token if the model wants one, and cut into chunks of
// `context` tokens that do not overlap; a rest is dropped. In each chunk the first token becomes that token too, and the
// tokens of the second half but the first are scored:  exp(- mean of log p(token | the chunk so far)).
#include "commands.hpp"
#include "composition.hpp"
#include "generation.hpp"
#include "terminal.hpp"

#include <lmkit/base/error.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <span>

namespace lmkit::cli {
namespace {

constexpr std::streamoff largest_text = std::streamoff{1} << 30;  // bytes
constexpr int chunks_at_once = 4;  // enough to fill a step with prompts of any length

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) throw Error(ErrorKind::usage, fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  const std::streamoff size = in.tellg();
  if (size < 0 || size > largest_text) throw Error(ErrorKind::usage, fmt::format("{} is not a file of at most 1 GiB", path));
  std::string text(static_cast<std::size_t>(size), '\0');
  in.seekg(0);
  if (!in.read(text.data(), size)) throw Error(ErrorKind::usage, fmt::format("cannot read {}", path));
  require_utf8(text, path);
  return text;
}

struct Score {
  double negative_log = 0;
  std::int64_t tokens = 0;
  double perplexity() const { return std::exp(negative_log / static_cast<double>(tokens)); }
};

struct Result {
  std::string pipeline = {};
  std::int64_t context = 0, chunks = 0;
  Score score = {};
  double seconds = 0;
};

// Adds what the second half of a chunk scores. logprobs[i] is of token i + 1.
void add(Score& score, std::span<const float> logprobs) {
  const std::size_t context = logprobs.size() + 1;
  for (std::size_t token = context / 2 + 1; token < context; ++token) score.negative_log -= logprobs[token - 1];
  score.tokens += static_cast<std::int64_t>(context - context / 2 - 1);
}

Result perplexity(Service& service, const Tokenizer& tokenizer, bool add_bos, const std::vector<TokenId>& tokens, std::int64_t context,
                  std::int64_t chunks) {
  const auto start = std::chrono::steady_clock::now();
  Result result{.context = context, .chunks = chunks};
  for (std::int64_t submitted = 0, done = 0; done < chunks;) {
    for (; submitted < chunks && submitted - done < chunks_at_once; ++submitted) {
      Request request;
      request.prompt.assign(tokens.begin() + submitted * context, tokens.begin() + (submitted + 1) * context);
      if (add_bos && tokenizer.bos()) request.prompt.front() = *tokenizer.bos();
      request.max_tokens = 0;
      request.prompt_logprobs = true;
      service.submit(std::move(request));
    }
    for (const Event& event : service.wait(std::chrono::milliseconds(200))) {
      if (event.finish == Finish::error) throw Error(ErrorKind::runtime, event.error);
      if (!event.prompt_logprobs.empty()) add(result.score, event.prompt_logprobs);
      if (event.finish != Finish::none) ++done;
    }
    if (interrupts() > 0) return result;
    if (result.score.tokens > 0) progress(fmt::format("context {}: chunk {} of {}, perplexity {:.4f}", context, done, chunks, result.score.perplexity()));
  }
  end_progress();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

boost::json::object json_of(const Result& result) {
  return {{"pipeline", result.pipeline}, {"context", result.context}, {"chunks", result.chunks}, {"scored", result.score.tokens},
          {"perplexity", result.score.perplexity()}, {"seconds", result.seconds}};
}

}  // namespace

int eval_command(const Arguments& arguments) {
  if (arguments.operands() != std::vector<std::string>{"ppl"})
    throw Error(ErrorKind::usage, "lmkit eval needs to know what to measure", "ppl", "lmkit eval ppl --data FILE");
  if (!arguments.given("data")) throw Error(ErrorKind::usage, "lmkit eval ppl needs a text", {}, "--data FILE");
  catch_interrupts();
  const std::string text = read_text(arguments.text("data"));
  const auto contexts = arguments.wholes("context");
  const auto model = open_named_model(arguments);
  EngineLimits limits = limits_of(arguments, chunks_at_once);
  if (!arguments.given("session-len")) limits.session_len = static_cast<int>(*std::max_element(contexts.begin(), contexts.end()));

  const bool json = arguments.flag("json");
  boost::json::array results;
  std::vector<TokenId> tokens;
  if (!json) print("context  chunks  perplexity  seconds  pipeline\n");
  for (const std::string& kv : kv_types(arguments)) {
    Composed composed = compose(arguments, kv);
    const std::string description = composed.description();
    const auto pipeline = start_pipeline(arguments, model, composed, limits);
    if (tokens.empty()) tokens = pipeline->tokenizer()->encode(text, {.add_special = true});
    Service& service = pipeline->start();
    for (const std::int64_t context : contexts) {
      const std::int64_t all = static_cast<std::int64_t>(tokens.size()) / context;
      const std::int64_t chunks = std::min(arguments.whole("chunks").value_or(all), all);
      if (chunks == 0) throw Error(ErrorKind::usage, fmt::format("the text has {} tokens", tokens.size()), fmt::format("at least {}", context), "a smaller --context");
      Result result = perplexity(service, *pipeline->tokenizer(), model->tokenizer().add_bos, tokens, context, chunks);
      if (interrupts() > 0) return interrupted_exit_code;
      result.pipeline = description;
      if (json) results.push_back(json_of(result));
      else print(fmt::format("{:>7}  {:>6}  {:>10.4f}  {:>7.1f}  {}\n", context, chunks, result.score.perplexity(), result.seconds, description));
    }
  }
  if (json) print(boost::json::serialize(boost::json::object{{"schema", "lmkit.eval_ppl/1"}, {"model", model->config().name},
                                                             {"data", arguments.text("data")}, {"results", results}}) + "\n");
  return 0;
}

}  // namespace lmkit::cli
