// SPDX-License-Identifier: Apache-2.0
//
// oracle_logits MODEL OUT [PLUGIN…] < ids: the logits that follow each token of a text, as float32 (ids, vocabulary).
#include <lmkit/pipeline.hpp>
#include <lmkit/plugin/registry.hpp>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace {

using AnyPipeline = lmkit::Pipeline<lmkit::AnyParallel, lmkit::AnyKvBackend, lmkit::AnyAllocator>;

AnyPipeline::Parts parts_of(const std::vector<std::string>& plugins) {
  std::vector<lmkit::PluginSpec> specs;
  for (const std::string& plugin : plugins) specs.push_back(lmkit::parse_plugin_spec(plugin));
  const lmkit::Composition found = lmkit::PluginRegistry(lmkit::plugin_search_path()).compose(specs);
  const auto kv = found.kv ? *found.kv : lmkit::AnyKvBackend::built_in<lmkit::KvF16>("kv-f16");
  return {.group = found.parallel ? std::make_shared<lmkit::AnyParallel::Group>(*found.parallel) : std::make_shared<lmkit::AnyParallel::Group>(),
          .make_kv = [kv](const lmkit::KvShape& shape) { return lmkit::AnyKvBackend(kv, shape); },
          .allocator = found.allocator ? lmkit::AnyAllocator(*found.allocator) : lmkit::AnyAllocator()};
}

void write_logits(const std::string& model, const std::string& out, const std::vector<std::string>& plugins, std::vector<lmkit::TokenId> ids) {
  std::ofstream file(out, std::ios::binary);
  file.exceptions(std::ios::badbit | std::ios::failbit);
  AnyPipeline pipeline(lmkit::open_model(model), parts_of(plugins), {.max_sequences = 1, .session_len = static_cast<int>(ids.size()) + 2});
  lmkit::Engine& engine = pipeline.engine();
  engine.tap_logits([&](const lmkit::StepPlan&, std::span<const float> logits) {
    file.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size_bytes()));
  });
  lmkit::Request request;
  request.prompt = std::move(ids);
  request.max_tokens = 1;
  request.prompt_logprobs = true;
  engine.submit(std::move(request));
  while (engine.has_work()) {
    engine.step();
    for (const lmkit::Event& event : engine.take_events())
      if (event.finish == lmkit::Finish::error) throw std::runtime_error(event.error);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) {
    std::fputs("oracle_logits MODEL OUT [PLUGIN…] < ids\n", stderr);
    return 2;
  }
  std::vector<lmkit::TokenId> ids;
  for (lmkit::TokenId id; std::cin >> id;) ids.push_back(id);
  try {
    write_logits(words[1], words[2], {words + 3, words + count}, std::move(ids));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
