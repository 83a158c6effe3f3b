# SPDX-License-Identifier: Apache-2.0
"""Perplexity of llama.cpp and lmkit on the same chunks of a text, by context and KV type; of the exact model as well.

    tests/oracle/run ppl --data TEXT [--chunks 100] [--exact] [--dequantised]
"""

import argparse
import json
import subprocess
import sys
import tempfile

import dequantise
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
    parser.add_argument("--dequantised", action="store_true", help="llama.cpp on single-precision copies of the weights too: it rounds activations for others")
    parser.add_argument("--kv", default="f16,q8_0,q4_0", help="llama.cpp's KV types; may be empty")
    parser.add_argument("--contexts", default="512,2048")
    parser.add_argument("--chunks", type=int, help="score this many chunks of each context, not all")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    with open(args.data, encoding="utf-8", newline="") as data:
        text = data.read()
    model = llama.Model(args.model)
    tokens = model.tokenize(text, add_bos=True)  # if the model adds one
    exact = reference.Reference(args.model) if args.exact else None
    single = None
    if args.dequantised:
        folder = tempfile.TemporaryDirectory()
        path = f"{folder.name}/single.gguf"
        dequantise.dequantise(args.model, path)
        single = llama.Model(path)

    for context in map(int, args.contexts.split(",")):

        def show(engine, kv, result):
            print(f"{engine:<14} {kv:<6} context {context:>5}  chunks {result['chunks']:>4}  perplexity {result['perplexity']:.4f}", flush=True)

        if exact:
            show("exact", "f32", llama.perplexity(model, exact, tokens, context, args.chunks, note))

        def show_llama(engine, loaded, kv):
            cache = llama.Context(loaded, context, kv, args.threads)
            show(engine, kv, llama.perplexity(loaded, cache, tokens, context, args.chunks, note))
            cache.close()

        if single:
            show_llama("llama.cpp, f32", single, "f16")
        for kv in filter(None, args.kv.split(",")):
            show_llama("llama.cpp", model, kv)
        if args.lmkit:
            command = [args.lmkit, "eval", "ppl", "--json", "-m", args.model, "--data", args.data, "--context", str(context),
                       "--kv", "f16,int8,int4", "--threads", str(args.threads)]
            command += ["--chunks", str(args.chunks)] if args.chunks else []
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for kv, result in zip(("f16", "int8", "int4"), report["results"]):
                show("lmkit", kv, result)


if __name__ == "__main__":
    main()
