# SPDX-License-Identifier: Apache-2.0
"""Hugging Face transformers on small models with random weights, one for each architecture and its variants.

    make      writes data/transformers.json, which tests/core/engine/transformers_test.cpp reads
    compare   makes it again and says what differs from what is stored; the exit code is 7 if anything does

Weights are not stored: `weights` and the test's C++ make the same ones from a seed and the tensor's name (SplitMix64). All
values are exact in bfloat16, so a file in F32 and one in BF16 are the same model. transformers computes in single precision,
each answer token from the whole text, without a cache.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

from text import fnv

STORED = pathlib.Path(__file__).resolve().parent / "data" / "transformers.json"
PROMPT, ANSWER = 150, 24
LEAST_GAP = 0.04  # between the best logits of each answer token: another seed is taken where they are closer
TOLERANCE = {"logits": 1e-3, "logprobs": 1e-3}  # of compare, between versions and machines

SHAPE = dict(vocab_size=512, hidden_size=128, intermediate_size=224, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=1024, bos_token_id=None, eos_token_id=511, pad_token_id=None)
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
MODELS = [
    ("llama", "llama", "F32", 1, dict(head_dim=64, rope_theta=10000.0, rope_scaling=LLAMA3_ROPE)),
    ("mistral", "mistral", "BF16", 1, dict(head_dim=64, sliding_window=40)),
    ("mistral-whole", "mistral", "F32", 1, dict(head_dim=64, sliding_window=None, num_key_value_heads=1)),
    ("qwen2", "qwen2", "F32", 2, dict(hidden_size=256, tie_word_embeddings=True, rope_scaling={"rope_type": "linear", "factor": 4.0})),
    ("qwen2-window", "qwen2", "BF16", 1, dict(hidden_size=256, use_sliding_window=True, sliding_window=24, max_window_layers=1)),
    ("qwen3", "qwen3", "BF16", 1, dict(head_dim=64, tie_word_embeddings=True)),
]
MASK = (1 << 64) - 1


def random_bytes(seed, name, count):
    """The same as in tests/support/seeded_model.hpp."""
    with np.errstate(over="ignore"):
        z = np.uint64((fnv(name.encode()) + seed) & MASK) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return ((z ^ z >> np.uint64(31)) & np.uint64(255)).astype(np.int32)


def weights(seed, name, shape):
    values = random_bytes(seed, name, int(np.prod(shape)))
    if name.endswith("norm.weight"):
        values = (64 + values // 2) / 128  # 0.5 to 1.5
    else:
        values = (values - 128) / (128 if name.endswith("bias") else 512)
    return torch.tensor(values.reshape(shape), dtype=torch.float32)


def make_model(kind, options, seed):
    config = transformers.AutoConfig.for_model(kind, **{**SHAPE, **options}, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    names = [n for n, _ in model.named_parameters()]  # tied matrices once
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights(seed, name, tuple(parameter.shape)))
    return model, [(n, list(model.get_parameter(n).shape)) for n in names]


@torch.no_grad()
def run_model(kind, options, seed):
    model, tensors = make_model(kind, options, seed)
    ids = (random_bytes(seed, "prompt", PROMPT) + 256 * (random_bytes(seed, "page", PROMPT) & 1)).tolist()
    prompt, answer, gaps = list(ids), [], []
    logits = model(torch.tensor([prompt])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)[torch.arange(PROMPT - 1), torch.tensor(prompt[1:])]
    last = logits[-1]
    for _ in range(ANSWER):
        best = torch.topk(model(torch.tensor([ids])).logits[0, -1], 2)
        gaps.append(round(float(best.values[0] - best.values[1]), 4))
        if gaps[-1] < LEAST_GAP:
            return None
        answer.append(int(best.indices[0]))
        ids.append(answer[-1])
    return {"seed": seed, "tensors": tensors, "prompt": prompt, "logprobs": [round(float(x), 5) for x in logprobs],
            "logits": [round(float(x), 5) for x in last], "answer": answer, "gaps": gaps}


def fixture(name, kind, dtype, shards, options):
    found = next(filter(None, (run_model(kind, options, seed) for seed in range(1, 1000))))
    config = {"model_type": kind, **SHAPE, **options}
    return {"name": name, "config": config, "dtype": dtype, "shards": shards, **found}


def make():
    torch.set_num_threads(2)
    return {"models": [fixture(*model) for model in MODELS]}


def text_of(document):
    """JSON with a line for each member of a model."""
    models = [",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in m.items()) for m in document["models"]]
    return '{"models": [\n' + ",\n".join("{\n" + m + "\n}" for m in models) + "\n]}\n"


def differences(mine, stored):
    for a, b in zip(mine["models"], stored["models"], strict=True):
        for key in a:
            if key in TOLERANCE:
                apart = max(abs(x - y) for x, y in zip(a[key], b[key], strict=True))
                if apart > TOLERANCE[key]:
                    yield f"{a['name']}: {key} differ by {apart}"
            elif key != "gaps" and json.dumps(a[key]) != json.dumps(b[key]):
                yield f"{a['name']}: {key} differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "compare"])
    document = make() if parser.parse_args().action == "make" else None
    if document:
        STORED.write_text(text_of(document))
        print(f"{STORED.name}: {STORED.stat().st_size} bytes, transformers {transformers.__version__}")
        return 0
    found = list(differences(make(), json.loads(STORED.read_text())))
    print("\n".join(found) or f"as stored, transformers {transformers.__version__}")
    return 7 if found else 0


if __name__ == "__main__":
    sys.exit(main())
