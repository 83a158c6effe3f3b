// SPDX-License-Identifier: Apache-2.0
#include "generation.hpp"

#include "terminal.hpp"

#include <lmkit/base/error.hpp>
#include <lmkit/base/log.hpp>
#include <lmkit/text/utf8.hpp>

#include <fmt/format.h>

#include <charconv>
#include <cmath>

namespace lmkit::cli {
namespace {

std::pair<TokenId, float> logit_bias(const std::string& text, const Tokenizer& tokenizer) {
  const std::size_t colon = text.find(':');
  TokenId token = -1;
  float bias = 0;
  const char* const middle = text.data() + std::min(colon, text.size());
  const char* const end = text.data() + text.size();
  if (colon != text.npos) {
    const auto id = std::from_chars(text.data(), middle, token);
    const auto value = std::from_chars(middle + 1, end, bias);
    if (id.ec == std::errc{} && id.ptr == middle && value.ec == std::errc{} && value.ptr == end && bias < INFINITY && token >= 0 &&
        token < tokenizer.size())
      return {token, bias};
  }
  throw Error(ErrorKind::usage, fmt::format("--logit-bias is '{}'", text),
              fmt::format("ID:BIAS with a token id from 0 to {} and a number or -inf", tokenizer.size() - 1));
}

// At temperature 0 there is nothing to draw, so options about drawing would be ignored.
void warn_of_idle_options(const Arguments& arguments) {
  if (arguments.number("temperature") != 0) return;
  for (const char* name : {"top-k", "top-p", "min-p", "seed"})
    if (arguments.given(name)) log(LogLevel::warning, fmt::format("--{} does nothing at temperature 0; try --temperature 0.8", name));
}

}  // namespace

SamplingParams sampling_of(const Arguments& arguments, const Tokenizer& tokenizer) {
  warn_of_idle_options(arguments);
  SamplingParams sampling;
  const auto number = [&](const char* name) { return static_cast<float>(arguments.number(name)); };
  sampling.temperature = number("temperature");
  sampling.top_k = static_cast<int>(*arguments.whole("top-k"));
  sampling.top_p = number("top-p");
  sampling.min_p = number("min-p");
  sampling.repetition_penalty = number("repetition-penalty");
  sampling.presence_penalty = number("presence-penalty");
  sampling.frequency_penalty = number("frequency-penalty");
  for (const std::string& text : arguments.texts("logit-bias")) sampling.logit_bias.push_back(logit_bias(text, tokenizer));
  if (const auto seed = arguments.whole("seed")) sampling.seed = static_cast<std::uint64_t>(*seed);
  return sampling;
}

Request request_of(const Arguments& arguments, const Tokenizer& tokenizer, std::vector<TokenId> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = sampling_of(arguments, tokenizer);
  request.max_tokens = static_cast<int>(arguments.whole("max-tokens").value_or(-1));
  request.stop = arguments.texts("stop");
  if (request.stop.size() > Request::most_stop_strings)
    throw Error(ErrorKind::usage, fmt::format("--stop is given {} times", request.stop.size()), fmt::format("at most {}", Request::most_stop_strings));
  for (const std::string& stop : request.stop) {
    require_utf8(stop, "--stop");
    if (stop.empty() || stop.size() > Request::longest_stop_string)
      throw Error(ErrorKind::usage, fmt::format("--stop has {} bytes", stop.size()), fmt::format("a text of 1 to {} that ends the answer", Request::longest_stop_string));
  }
  if (arguments.command() == run) {
    request.ignore_eos = arguments.flag("ignore-eos");
    request.logprobs = static_cast<int>(arguments.whole("logprobs").value_or(-1));
  }
  return request;
}

Answer generate(Service& service, Request request, const std::function<void(std::string_view)>& piece) {
  Answer answer;
  const RequestId id = service.submit(std::move(request));
  bool cancelled = false;
  while (answer.finish == Finish::none) {
    if (interrupts() > 0 && !cancelled) {
      service.cancel(id);
      cancelled = true;
    }
    for (Event& event : service.wait(std::chrono::milliseconds(50))) {
      if (event.finish == Finish::error) throw Error(ErrorKind::runtime, event.error);
      if (!cancelled && !event.text.empty()) piece(event.text);
      answer.text += event.text;
      answer.finish = event.finish;
      answer.usage = event.usage;
      answer.events.push_back(std::move(event));
    }
  }
  return answer;
}

const char* name_of(Finish finish) {
  switch (finish) {
    case Finish::none: return "none";
    case Finish::stop: return "stop";
    case Finish::length: return "length";
    case Finish::cancelled: return "cancelled";
    case Finish::error: return "error";
  }
  return "none";
}

std::string stats_line(const Usage& usage) {
  const auto rate = [](double tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0; };
  std::string out = fmt::format("prompt {} tokens", usage.prompt_tokens);
  if (usage.generated_tokens > 0) {
    const double reading = usage.first_token - usage.queued, writing = usage.total - usage.first_token;
    out += fmt::format(", {:.0f} tok/s   first token {:.0f} ms   answer {} tokens, {:.0f} tok/s", rate(usage.prompt_tokens, reading),
                       usage.first_token * 1e3, usage.generated_tokens, rate(usage.generated_tokens - 1, writing));
  }
  return out + fmt::format("   total {:.2f} s{}", usage.total, usage.preemptions ? fmt::format("   preempted {} times", usage.preemptions) : "");
}

void require_utf8(std::string_view text, std::string_view what) {
  if (const auto at = first_invalid_utf8(text))
    throw Error(ErrorKind::usage, fmt::format("{} is not UTF-8: byte {} is 0x{:02x}", what, *at, static_cast<unsigned char>(text[*at])),
                "valid UTF-8", "iconv -t UTF-8");
}

}  // namespace lmkit::cli
