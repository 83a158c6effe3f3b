# SPDX-License-Identifier: Apache-2.0
"""Perplexity of llama.cpp and lmkit on the same chunks of a text, by context and KV type; of the exact model as well.

    tests/oracle/run ppl --data TEXT [--chunks 100] [--exact]
"""

import argparse
import json
import subprocess
import sys

import llama
import reference


def note(chunk, count, perplexity):
    if sys.stderr.isatty():
        print(f"\r{chunk}/{count} {perplexity:.4f} ", end="", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--lmkit", help="the lmkit program; without it only the others are measured")
    parser.add_argument("--exact", action="store_true", help="the exact model (reference.py) too, without any quantised cache")
    parser.add_argument("--kv", default="f16,q8_0,q4_0", help="llama.cpp's KV types")
    parser.add_argument("--contexts", default="512,2048")
    parser.add_argument("--chunks", type=int, help="score this many chunks of each context, not all")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    with open(args.data, encoding="utf-8", newline="") as data:
        text = data.read()
    model = llama.Model(args.model)
    tokens = model.tokenize(text)
    exact = reference.Reference(args.model) if args.exact else None

    for context in map(int, args.contexts.split(",")):

        def show(engine, kv, result):
            print(f"{engine:<10} {kv:<6} context {context:>5}  chunks {result['chunks']:>4}  perplexity {result['perplexity']:.4f}", flush=True)

        if exact:
            show("exact", "f32", llama.perplexity(model, exact, tokens, context, args.chunks, note))
        for kv in args.kv.split(","):
            engine = llama.Context(model, context, kv, args.threads)
            show("llama.cpp", kv, llama.perplexity(model, engine, tokens, context, args.chunks, note))
            engine.close()
        if args.lmkit:
            command = [args.lmkit, "eval", "ppl", "--json", "-m", args.model, "--data", args.data, "--context", str(context),
                       "--kv", "f16,int8,int4", "--threads", str(args.threads)]
            command += ["--chunks", str(args.chunks)] if args.chunks else []
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for kv, result in zip(("f16", "int8", "int4"), report["results"]):
                show("lmkit", kv, result)


if __name__ == "__main__":
    main()
