# SPDX-License-Identifier: Apache-2.0
"""Perplexity of llama.cpp and lmkit on the same text, by context and KV type.

    tests/oracle/run ppl --data TEXT [--chunks 100]
"""

import argparse
import json
import subprocess
import sys

import llama


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--lmkit", help="the lmkit program; without it only llama.cpp is measured")
    parser.add_argument("--contexts", default="512,2048")
    parser.add_argument("--chunks", type=int, help="score this many chunks of each context, not all")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    with open(args.data, encoding="utf-8", newline="") as data:
        text = data.read()
    model = llama.Model(args.model)
    tokens = model.tokenize(text)

    def show(engine, kv, context, result):
        print(f"{engine:<10} {kv:<6} context {context:>5}  chunks {result['chunks']:>4}  perplexity {result['perplexity']:.4f}", flush=True)

    for context in map(int, args.contexts.split(",")):
        for kv in ("f16", "q8_0", "q4_0"):
            note = lambda i, n, p: print(f"\r{i}/{n} {p:.4f} ", end="", file=sys.stderr) if sys.stderr.isatty() else None
            show("llama.cpp", kv, context, llama.perplexity(model, tokens, context, kv, args.threads, args.chunks, note))
        if args.lmkit:
            command = [args.lmkit, "eval", "ppl", "--json", "-m", args.model, "--data", args.data, "--context", str(context),
                       "--kv", "f16,int8,int4", "--threads", str(args.threads)]
            command += ["--chunks", str(args.chunks)] if args.chunks else []
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for kv, result in zip(("f16", "int8", "int4"), report["results"]):
                show("lmkit", kv, context, result)


if __name__ == "__main__":
    main()
