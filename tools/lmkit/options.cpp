// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <lmkit/engine/service.hpp>

#include <array>

namespace lmkit::cli {
namespace {

constexpr unsigned everywhere = engine_commands | plugin | doctor;
constexpr unsigned answers = run | chat;
using enum Kind;
using S = Section;

constexpr std::array table = std::to_array<CommandInfo>({
    {run, "run", "[PROMPT]", "answer one prompt",
     "The prompt is the operand, or what stdin holds. The answer goes to stdout as it is made.", nullptr},
    {chat, "chat", "", "talk in several turns",
     "Ctrl-C stops the answer, twice quits. /help lists what can be typed besides messages.", nullptr},
    {bench, "bench", "engine | kernel", "measure prefill and decode speed, or the kernels one by one",
     "Prints a table with the machine's limits, measured in the same run, and the fraction of them that is reached.", "engine|kernel"},
    {plan, "plan", "", "show what a pipeline takes in memory",
     "Prints the ledger that the engine would allocate, without loading any weights.", nullptr},
    {plugin, "plugin", "list | inspect NAME", "list plugins, or show what one says about itself",
     "Reads plugin files without running any of their code.", "list|inspect"},
    {eval, "eval", "ppl", "measure perplexity on a text",
     "As llama.cpp defines it: chunks of --context tokens that do not overlap, the second half of each is scored.", "ppl"},
    {doctor, "doctor", "", "look for what keeps lmkit from running well",
     "Each finding that is not good comes with a remedy.", nullptr},
    {help, "help", "[COMMAND]", "explain a command", "Also writes the manual and completion scripts.",
     "run|chat|bench|plan|plugin|eval|doctor"},
});

constexpr std::array all = std::to_array<Option>({
    // --- model -----------------------------------------------------------------------------------------------------
    {.name = "model-path", .letter = 'm', .value = "MODEL", .section = S::model, .commands = engine_commands,
     .help = "a GGUF file, a Hugging Face directory, or the name of a model in the cache (default: SmolLM2-135M-Instruct)"},
    {.name = "model", .value = "MODEL", .section = S::model, .commands = engine_commands, .same_as = "model-path"},
    {.name = "session-len", .letter = 'c', .kind = whole, .value = "N", .section = S::model, .commands = engine_commands,
     .help = "tokens one sequence may have (default: the model's context)", .minimum = 1, .maximum = 1 << 24},
    {.name = "ctx-size", .kind = whole, .value = "N", .section = S::model, .commands = engine_commands, .same_as = "session-len"},
    {.name = "max-batch-size", .kind = whole, .value = "N", .section = S::model, .commands = engine_commands,
     .help = "sequences in one step", .minimum = 1, .maximum = 4096},
    {.name = "max-batch-tokens", .kind = whole, .value = "N", .section = S::model, .commands = engine_commands,
     .help = "new tokens in one step; longer prompts are read in chunks (default: 512 on a CPU, 4096 on a GPU); "
             "bench kernel: in a matrix product (256, 4096)", .minimum = 1,
     .maximum = 1 << 20},
    {.name = "device", .kind = choice, .value = "DEVICE", .section = S::model, .commands = engine_commands,
     .help = "what the model runs on; auto: a GPU if there is one", .fallback = "auto", .choices = "auto|cpu|cuda"},
    {.name = "dtype", .kind = choice, .value = "TYPE", .section = S::model, .commands = engine_commands,
     .help = "weights and activations on a GPU; auto: bf16 if the model's weights are, else f16", .fallback = "auto",
     .choices = "auto|f16|bf16"},
    {.name = "enforce-eager", .kind = flag, .section = S::model, .commands = engine_commands,
     .help = "on a GPU, launch steps kernel by kernel instead of replaying CUDA graphs"},
    {.name = "load-format", .kind = choice, .value = "FORMAT", .section = S::model, .commands = engine_commands,
     .help = "dummy: random weights in the shape of a config.json, for speed work", .fallback = "auto", .choices = "auto|dummy"},
    {.name = "threads", .letter = 't', .kind = whole, .value = "N", .section = S::model, .commands = engine_commands | doctor,
     .help = "CPU threads of all ranks together (default: the CPUs this process may use)", .minimum = 1, .maximum = 1024},
    {.name = "device-memory-limit", .kind = size, .value = "SIZE", .section = S::model, .commands = engine_commands,
     .help = "the most the memory ledger may use, as in 24GiB (default: what is available)", .minimum = 1},

    // --- pipeline --------------------------------------------------------------------------------------------------
    {.name = "plugin", .value = "SPEC", .section = S::pipeline, .commands = engine_commands,
     .help = "load a plugin: NAME[:KEY=VALUE,…] or ./PATH.so[:KEY=VALUE,…]", .repeatable = true},
    {.name = "plugin-path", .value = "DIR", .section = S::pipeline, .commands = everywhere,
     .help = "look for plugins here first", .repeatable = true},
    {.name = "tp", .kind = whole, .value = "N", .section = S::pipeline, .commands = engine_commands,
     .help = "cut the model over N ranks: --plugin tp-threads:size=N", .minimum = 1, .maximum = 1024},
    {.name = "tensor-parallel-size", .kind = whole, .value = "N", .section = S::pipeline, .commands = engine_commands, .same_as = "tp"},
    {.name = "kv", .kind = list, .value = "TYPE", .section = S::pipeline, .commands = engine_commands,
     .help = "how keys and values are stored: f16, int8 (--plugin kv-int8) or int4 (--plugin kv-int4); "
             "bench and eval take several: f16,int8,int4", .choices = "f16|int8|int4", .decides = "kv"},
    {.name = "quant-policy", .kind = choice, .value = "BITS", .section = S::pipeline, .commands = engine_commands,
     .help = "the same by bits: 0 (f16), 8 or 4", .choices = "0|4|8", .decides = "kv"},
    {.name = "ctk", .one_dash = true, .kind = choice, .value = "TYPE", .section = S::pipeline, .commands = engine_commands,
     .help = "the same in llama.cpp's words, with an equal -ctv: f16, q8_0 or q4_0", .choices = "f16|q8_0|q4_0", .decides = "kv"},
    {.name = "ctv", .one_dash = true, .kind = choice, .value = "TYPE", .section = S::pipeline, .commands = engine_commands,
     .help = "see -ctk", .choices = "f16|q8_0|q4_0", .decides = "kv"},
    {.name = "cache-type-k", .kind = choice, .value = "TYPE", .section = S::pipeline, .commands = engine_commands,
     .choices = "f16|q8_0|q4_0", .same_as = "ctk"},
    {.name = "cache-type-v", .kind = choice, .value = "TYPE", .section = S::pipeline, .commands = engine_commands,
     .choices = "f16|q8_0|q4_0", .same_as = "ctv"},
    {.name = "cache-max-entry-count", .kind = number, .value = "R", .section = S::pipeline, .commands = engine_commands,
     .help = "the KV pool's share of what the rest of the ledger leaves: --plugin mem-ratio:ratio=R", .minimum = 0, .maximum = 1,
     .above_minimum = true},
    {.name = "gpu-memory-utilization", .value = "R", .commands = engine_commands,
     .refused = "it counts weights and KV cache together; try --cache-max-entry-count R (a share of what the weights leave) "
                "or --device-memory-limit SIZE (a cap on everything)"},
    {.name = "ngl", .one_dash = true, .value = "N", .commands = engine_commands,
     .refused = "lmkit does not split layers between CPU and GPU; leave it out"},
    {.name = "n-gpu-layers", .value = "N", .commands = engine_commands,
     .refused = "lmkit does not split layers between CPU and GPU; leave it out"},

    // --- sampling --------------------------------------------------------------------------------------------------
    {.name = "max-tokens", .letter = 'n', .kind = whole, .value = "N", .section = S::sampling, .commands = answers,
     .help = "the most tokens an answer may have (default: as many as the context takes)", .maximum = 1 << 24},
    {.name = "temperature", .kind = number, .value = "T", .section = S::sampling, .commands = answers,
     .help = "0: always the most likely token", .fallback = "0", .maximum = 100},
    {.name = "temp", .kind = number, .value = "T", .section = S::sampling, .commands = answers, .maximum = 100, .same_as = "temperature"},
    {.name = "top-k", .kind = whole, .value = "K", .section = S::sampling, .commands = answers,
     .help = "draw from the K most likely tokens (0: all)", .fallback = "0", .maximum = 1 << 24},
    {.name = "top-p", .kind = number, .value = "P", .section = S::sampling, .commands = answers,
     .help = "draw from the most likely tokens that together reach P", .fallback = "1", .minimum = 0, .maximum = 1, .above_minimum = true},
    {.name = "min-p", .kind = number, .value = "P", .section = S::sampling, .commands = answers,
     .help = "drop tokens less likely than P times the most likely one", .fallback = "0", .maximum = 1, .below_maximum = true},
    {.name = "repetition-penalty", .kind = number, .value = "X", .section = S::sampling, .commands = answers,
     .help = "divide the logits of tokens that occurred in prompt or answer", .fallback = "1", .maximum = 100, .above_minimum = true},
    {.name = "repeat-penalty", .kind = number, .value = "X", .section = S::sampling, .commands = answers, .maximum = 100,
     .above_minimum = true, .same_as = "repetition-penalty"},
    {.name = "presence-penalty", .kind = number, .value = "X", .section = S::sampling, .commands = answers,
     .help = "subtract once from tokens of the answer", .fallback = "0", .minimum = -100, .maximum = 100},
    {.name = "frequency-penalty", .kind = number, .value = "X", .section = S::sampling, .commands = answers,
     .help = "subtract for each time a token occurs in the answer", .fallback = "0", .minimum = -100, .maximum = 100},
    {.name = "logit-bias", .value = "ID:BIAS", .section = S::sampling, .commands = answers,
     .help = "add BIAS to the logit of token ID; -inf: never this token", .repeatable = true},
    {.name = "seed", .kind = whole, .value = "N", .section = S::sampling, .commands = answers,
     .help = "same seed, same text (default: a fresh one)", .maximum = 9.007199254740992e15},
    {.name = "stop", .value = "TEXT", .section = S::sampling, .commands = answers,
     .help = "end the answer before TEXT", .repeatable = true},
    {.name = "ignore-eos", .kind = flag, .section = S::sampling, .commands = run, .help = "go on when the model ends its answer"},
    {.name = "system", .value = "TEXT", .section = S::sampling, .commands = answers, .help = "the system message"},
    {.name = "raw", .kind = flag, .section = S::sampling, .commands = run, .help = "give the prompt to the model as it is, without chat template"},

    // --- output ----------------------------------------------------------------------------------------------------
    {.name = "stats", .kind = flag, .section = S::output, .commands = answers, .help = "say on stderr how long it took"},
    {.name = "json", .kind = flag, .section = S::output, .commands = run | bench | plan | plugin | eval | doctor,
     .help = "one JSON object on stdout, with a versioned \"schema\""},
    {.name = "logprobs", .kind = whole, .value = "N", .section = S::output, .commands = run,
     .help = "with --json: log probabilities of each token and of the N most likely ones", .maximum = Request::most_logprobs},

    // --- measuring -------------------------------------------------------------------------------------------------
    {.name = "data", .value = "FILE", .section = S::measuring, .commands = eval, .help = "the UTF-8 text to score"},
    {.name = "context", .kind = wholes, .value = "N", .section = S::measuring, .commands = eval,
     .help = "tokens in a chunk; several: 512,2048", .fallback = "512", .minimum = 4, .maximum = 1 << 20},
    {.name = "chunks", .kind = whole, .value = "N", .section = S::measuring, .commands = eval, .help = "score the first N chunks only", .minimum = 1},
    {.name = "depths", .kind = wholes, .value = "N,…", .section = S::measuring, .commands = bench,
     .help = "decode behind this many tokens (bench kernel: 1024 on a CPU, 4096 on a GPU)", .fallback = "0,1024", .maximum = 1 << 24},
    {.name = "batches", .kind = wholes, .value = "N,…", .section = S::measuring, .commands = bench,
     .help = "decode this many sequences at once (bench kernel: 1,16 or 1,128)", .fallback = "1", .minimum = 1, .maximum = 4096},
    {.name = "prefill", .kind = wholes, .value = "N,…", .section = S::measuring, .commands = bench,
     .help = "read prompts of this many tokens (bench kernel: 512, or 1024,4096,16384 on a GPU)", .fallback = "512", .minimum = 1, .maximum = 1 << 24},
    {.name = "steps", .kind = whole, .value = "N", .section = S::measuring, .commands = bench, .help = "decode steps in one measurement of bench engine",
     .fallback = "32", .minimum = 1, .maximum = 1 << 20},
    {.name = "repeats", .kind = whole, .value = "N", .section = S::measuring, .commands = bench,
     .help = "measurements, of which the median is shown", .fallback = "5", .minimum = 1, .maximum = 1000},

    // --- other -----------------------------------------------------------------------------------------------------
    {.name = "config", .value = "FILE", .commands = everywhere,
     .help = "read defaults from FILE (default: $XDG_CONFIG_HOME/lmkit/lmkit.toml)"},
    {.name = "help", .letter = 'h', .kind = flag, .commands = everywhere | help, .help = "explain this command"},
    {.name = "markdown", .kind = flag, .commands = help, .help = "write the manual of all commands"},
    {.name = "completion", .kind = choice, .value = "SHELL", .commands = help, .help = "write the completion script of a shell",
     .choices = "bash|zsh|fish"},
});

}  // namespace

std::span<const CommandInfo> commands() { return table; }
std::span<const Option> options() { return all; }

const CommandInfo* find_command(std::string_view name) {
  for (const CommandInfo& command : table)
    if (name == command.name) return &command;
  return nullptr;
}

const CommandInfo& info_of(Command command) {
  for (const CommandInfo& info : table)
    if (info.id == command) return info;
  return table.back();
}

const Option* find_option(std::string_view name) {
  for (const Option& option : all)
    if (name == option.name) return &option;
  return nullptr;
}

}  // namespace lmkit::cli
