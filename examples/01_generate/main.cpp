// SPDX-License-Identifier: Apache-2.0
//
// The smallest use: a prompt goes in, an answer comes out.
//     01_generate "Why is the sky blue?" [model]
#include <lmkit/pipeline.hpp>

#include <cstdio>

int main(int argc, char** argv) try {
  lmkit::Pipeline pipeline(lmkit::open_model(lmkit::resolve_model(argc > 2 ? argv[2] : "")));
  lmkit::Service& service = pipeline.start();

  lmkit::Request request;
  request.prompt = pipeline.tokenizer()->encode(argc > 1 ? argv[1] : "Once upon a time");
  request.sampling.temperature = 0;
  request.max_tokens = 64;
  service.submit(std::move(request));

  for (bool done = false; !done;) {
    for (const lmkit::Event& event : service.wait(std::chrono::seconds(1))) {
      std::fputs(event.text.c_str(), stdout);
      if (!event.error.empty()) std::fprintf(stderr, "%s\n", event.error.c_str());
      done = event.finish != lmkit::Finish::none;
    }
    std::fflush(stdout);
  }
  std::puts("");
} catch (const lmkit::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(error.kind());
}
