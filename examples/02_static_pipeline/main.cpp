// SPDX-License-Identifier: Apache-2.0
//
// The three choices as types: all code is known to the compiler, and the engine is stepped by hand. Several requests
// share each step.
//     02_static_pipeline [model]
#include <lmkit/pipeline.hpp>

#include <cstdio>
#include <map>
#include <string>

int main(int argc, char** argv) try {
  using namespace lmkit;
  using Research = Pipeline<OneDevice, KvF16, WholePool>;  // put your own KvBackend or AllocatorPolicy here

  Research pipeline(open_model(resolve_model(argc > 1 ? argv[1] : "")), {}, {.max_sequences = 4, .session_len = 512});
  std::printf("KV pool: %d blocks of %d tokens\n", pipeline.ledger().blocks, pipeline.ledger().block_tokens);

  Engine& engine = pipeline.engine();
  for (const char* prompt : {"The capital of France is", "Water boils at", "def fibonacci(n):"}) {
    Request request;
    request.prompt = pipeline.tokenizer()->encode(prompt);
    request.sampling.temperature = 0;
    request.max_tokens = 24;
    engine.submit(std::move(request));
  }

  std::map<RequestId, std::string> answers;
  while (engine.has_work()) {
    engine.step();
    for (const Event& event : engine.take_events()) answers[event.id] += event.text + event.error;
  }
  for (const auto& [id, answer] : answers) std::printf("[%lld] %s\n", static_cast<long long>(id), answer.c_str());
} catch (const lmkit::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(error.kind());
}
