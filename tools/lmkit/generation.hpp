// SPDX-License-Identifier: Apache-2.0
//
// What run and chat share: options to a Request, and an answer as it comes.
#pragma once

#include "arguments.hpp"

#include <lmkit/engine/service.hpp>
#include <lmkit/text/tokenizer.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit::cli {

SamplingParams sampling_of(const Arguments& arguments, const Tokenizer& tokenizer);
Request request_of(const Arguments& arguments, const Tokenizer& tokenizer, std::vector<TokenId> prompt);

struct Answer {
  std::string text;
  std::vector<Event> events;  // one for each token
  Finish finish = Finish::none;
  Usage usage;
};

// Submits and waits; `piece` gets each piece of valid UTF-8. The first Ctrl-C cancels. Throws Error when the request fails.
Answer generate(Service& service, Request request, const std::function<void(std::string_view)>& piece);

const char* name_of(Finish finish);
std::string stats_line(const Usage& usage);

// Throws Error(usage) that says where a text stops being UTF-8.
void require_utf8(std::string_view text, std::string_view what);

}  // namespace lmkit::cli
