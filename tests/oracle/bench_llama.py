# SPDX-License-Identifier: Apache-2.0
"""Speed of llama.cpp and lmkit with the same file on the same machine in the same run, as one table.

llama.cpp gets its best settings: weights repacked for this CPU, flash attention on or off, whichever is faster for the
row, OpenMP threads that spin. Each number is the median of --repeats measurements; the engines take turns.
    tests/oracle/run bench --model model.gguf --lmkit build/bin/lmkit --threads 2
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import llama


def decode_speed(cache, prompt, steps, repeats):
    """Tokens per second of single-token steps behind len(prompt) tokens. Sampling is left out: a fixed token is fed."""
    cache.clear()
    if prompt:
        cache.feed_quietly(prompt)
    speeds = []
    for _ in range(repeats):
        cache.truncate(len(prompt))
        begin = time.perf_counter()
        for _ in range(steps):
            cache.feed_quietly([1000])
        speeds.append(steps / (time.perf_counter() - begin))
    return statistics.median(speeds)


def prefill_speed(cache, prompt, repeats):
    speeds = []
    for _ in range(repeats):
        cache.clear()
        begin = time.perf_counter()
        cache.feed_quietly(prompt)
        speeds.append(len(prompt) / (time.perf_counter() - begin))
    return statistics.median(speeds)


def measure_llama(args, kv):
    best = {}
    # a quantised V cache needs flash attention
    for flash in (True, False) if kv == "f16" else (True,):
        cache = llama.Context(args.weights, 2048, kv, args.threads, flash=flash)
        prompt = [1 + i % 1000 for i in range(max(args.depths + [args.prefill]))]
        cache.feed_quietly(prompt[: args.prefill])  # warm-up
        for depth in args.depths:
            speed = decode_speed(cache, prompt[:depth], args.steps, args.repeats)
            best[f"decode@{depth}"] = max(best.get(f"decode@{depth}", 0), speed)
        best[f"prefill{args.prefill}"] = max(best.get(f"prefill{args.prefill}", 0), prefill_speed(cache, prompt[: args.prefill], args.repeats))
        cache.close()
    return best


def measure_lmkit(args):
    command = [args.lmkit, "bench", "engine", "--json", "-m", args.model, "--threads", str(args.threads), "--kv", "f16,int8,int4",
               "--depths", ",".join(map(str, args.depths)), "--prefill", str(args.prefill), "--repeats", str(args.repeats),
               "--steps", str(args.steps)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rows = {}
    for row in report["results"]:
        name = f"prefill{row['tokens']}" if row["kind"] == "prefill" else f"decode@{row['depth']}"
        rows.setdefault(row["kv"], {})[name] = row["tokens_per_second"]
    return rows


def table(rows, columns):
    base = rows["llama.cpp f16"]
    lines = ["| engine, KV | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        cells = [f"{row[c]:.0f} ({row[c] / base[c]:.2f}x)" if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lmkit", help="the lmkit program; without it only llama.cpp is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=lambda s: [int(d) for d in s.split(",")], default=[0, 1024])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kv", default="f16,q8_0,q4_0")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.weights = llama.Model(args.model)

    rows = {f"llama.cpp {kv}": measure_llama(args, kv) for kv in args.kv.split(",")}
    if args.lmkit:
        rows.update({f"lmkit {kv}": row for kv, row in measure_lmkit(args).items()})
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        columns = [f"decode@{d}" for d in args.depths] + [f"prefill{args.prefill}"]
        print(f"tokens per second, {args.threads} threads, median of {args.repeats}; in brackets: times llama.cpp f16\n")
        print(table(rows, columns))


if __name__ == "__main__":
    main()
