# SPDX-License-Identifier: Apache-2.0
"""The engine against llama.cpp with the same file: greedy text and next-token distributions.

    make      writes data/greedy.json and data/distributions.json, which tests/e2e/oracle_test.cpp reads
    compare   runs llama.cpp and lmkit now and prints where they differ; the exit code is 7 when a bound is broken
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import jinja2
import numpy as np
from gguf import GGUFReader

import llama

ANSWER_TOKENS = 128
MAX_MEAN_KL = 1e-3
# Two programs round differently, so where llama.cpp's two best logits are this close, either may win.
LOGIT_GAP = 0.5

PROMPTS = [
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What is the capital of France, and what is it known for?",
    "Explain photosynthesis to a ten-year-old.",
    "Write a Python function that reverses a string.",
    "List five fruits and their colours.",
    "Translate to French: The weather is nice today.",
    "What is 17 + 25? Explain each step.",
    "Tell me a story about a fox who could not sleep.",
    "Give three reasons to learn a second language.",
]

# Plain prose, a table of numbers, code, another language, dialogue, and something no model expects.
TEXTS = [
    "The lighthouse keeper climbed the stairs every evening at six, counted the steps as he went, and never once arrived at "
    "the same number. He did not mind. The sea, he said, was not the same twice either, and nobody complained about that.",
    "A heat pump moves heat instead of making it. A liquid with a low boiling point evaporates outside, where it takes up heat "
    "even from cold air, is compressed, which makes it hot, and gives that heat to the water in the radiators.",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n\n\n"
    "def variance(values):\n    centre = mean(values)\n    return mean([(value - centre) ** 2 for value in values])\n",
    "Year, rainfall in mm, days of frost\n2001, 812, 44\n2002, 790, 51\n2003, 601, 63\n2004, 845, 39\n2005, 777, 48\n",
    "Der Zug hielt auf freier Strecke, und niemand wusste, warum. Nach einer Weile öffnete jemand ein Fenster, und man hörte "
    "die Grillen im Feld.",
    "\"Did you feed the cat?\" \"Twice.\" \"Twice?\" \"She asked twice.\" He looked at the cat, who looked at the wall as if the "
    "wall had done it.",
]
TOP = 32


def chat_template(path):
    field = GGUFReader(path).fields["tokenizer.chat_template"]
    text = bytes(field.parts[field.data[0]]).decode()
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text)


def greedy(model, template, prompt, threads):
    """Ids of the prompt and of the most likely answer, with the gap between the two best logits at each token."""
    ids = model.tokenize(template.render(messages=[{"role": "user", "content": prompt}], add_generation_prompt=True), special=True)
    cache = llama.Context(model, len(ids) + ANSWER_TOKENS + 8, threads=threads)
    answer, gaps = [], []
    tokens = ids
    while len(answer) < ANSWER_TOKENS:
        logits = cache.feed(tokens)[0]
        best, second = np.partition(logits, -2)[[-1, -2]]
        token = int(logits.argmax())
        gaps.append(round(float(best - second), 4))
        answer.append(token)
        if model.ends(token):
            break
        tokens = [token]
    cache.close()
    return {"prompt": prompt, "ids": ids, "answer": answer, "gaps": gaps,
            "text": model.text([t for t in answer if not model.ends(t)])}


def distributions(model, text, threads):
    """Ids of a text and log p (ids, vocabulary) of what follows each."""
    ids = model.tokenize(text)
    cache = llama.Context(model, len(ids) + 8, threads=threads)
    rows = llama.log_softmax(cache.feed(ids, logits_from=0))
    cache.close()
    return ids, rows


def make(args, model):
    os.makedirs(args.out, exist_ok=True)
    template = chat_template(args.model)
    answers = [greedy(model, template, prompt, args.threads) for prompt in PROMPTS]
    with open(os.path.join(args.out, "greedy.json"), "w") as out:
        json.dump({"logit_gap": LOGIT_GAP, "answers": answers}, out, ensure_ascii=False, indent=0)
    texts = []
    for text in TEXTS:
        ids, rows = distributions(model, text, args.threads)
        top = np.argsort(-rows, axis=1)[:, :TOP]
        texts.append({"ids": ids, "top": [[int(t) for t in row] for row in top],
                      "logprobs": [[round(float(p), 4) for p in rows[i, row]] for i, row in enumerate(top)]})
    with open(os.path.join(args.out, "distributions.json"), "w") as out:
        json.dump({"max_mean_kl": MAX_MEAN_KL, "texts": texts}, out, separators=(",", ":"))
    print(f"wrote {len(answers)} answers and {sum(len(t['ids']) for t in texts)} distributions to {args.out}")


def lmkit_answer(args, prompt):
    command = [os.path.join(args.build, "bin", "lmkit"), "run", "--json", "-m", args.model, "-n", str(ANSWER_TOKENS), prompt]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return [token["id"] for token in json.loads(run.stdout)["tokens"]]


def lmkit_distributions(args, ids, vocabulary):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([os.path.join(args.build, "bin", "oracle_logits"), args.model, out.name, *args.plugin],
                       input=" ".join(map(str, ids)).encode(), check=True)
        logits = np.fromfile(out.name, np.float32).reshape(-1, vocabulary)
    return llama.log_softmax(logits)


def compare(args, model):
    template = chat_template(args.model)
    equal = explained = 0
    for prompt in PROMPTS:
        oracle = greedy(model, template, prompt, args.threads)
        mine = lmkit_answer(args, prompt)
        theirs = oracle["answer"]
        at = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), None)
        if at is None and len(mine) != len(theirs):
            at = min(len(mine), len(theirs))
        if at is None:
            equal += 1
            print(f"equal        {prompt}")
        else:
            gap = oracle["gaps"][min(at, len(oracle["gaps"]) - 1)]
            explained += gap <= LOGIT_GAP
            print(f"differs      {prompt}: token {at}, where llama.cpp's best two logits are {gap} apart")
    mean_kls, count = [], 0
    for text in TEXTS:
        ids, theirs = distributions(model, text, args.threads)
        mine = lmkit_distributions(args, ids, model.vocabulary)
        rows = min(len(mine), len(theirs))
        kl = (np.exp(theirs[:rows]) * (theirs[:rows] - mine[:rows])).sum(1)
        mean_kls.append(kl)
        count += rows
    kl = np.concatenate(mean_kls)
    print(f"greedy: {equal} of {len(PROMPTS)} answers equal, {explained} of the others differ first where the gap is at most {LOGIT_GAP}")
    print(f"KL(llama.cpp || lmkit) over {count} positions: mean {kl.mean():.2e}, median {np.median(kl):.2e}, largest {kl.max():.2e}")
    held = equal + explained == len(PROMPTS) and equal >= 9 and kl.mean() <= MAX_MEAN_KL
    return 0 if held or args.plugin else 7


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "compare"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", help="folder of the fixtures")
    parser.add_argument("--build", default="build")
    parser.add_argument("--plugin", action="append", default=[], help="measure the distributions with this plugin; no bound then")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    model = llama.Model(args.model)
    return make(args, model) if args.action == "make" else compare(args, model)


if __name__ == "__main__":
    sys.exit(main())
