"""Prefill, decoding and training against stock transformers (SDPA, DynamicCache), as ratios of time in one run.

python benchmarks/speed.py [prefill|decode|flat|plain|long|train] [--dtype float32|bfloat16] [--rounds 5] [--only NAME]...
"""

import argparse
import time
from functools import partial

import torch
from _setup import KV_HEADS, LAYERS, Contender, Run, interleaved
from transformers import Cache

from longreach.engine.prompt import prompt_end

STOCK, STATIC, READ = Contender("stock DynamicCache"), Contender("stock StaticCache", static=True), Contender("longreach", read=True)
FULL, EXTEND = Contender("full", "full"), Contender("self_extend", "self_extend:neighbours=1024,group=8")
SINKS = Contender("sinks 4 + 1020", "sinks:num_sinks=4,window_size=1020")
HALF = "/".join(f"{layer}.{head}" for layer in range(LAYERS) for head in range(KV_HEADS // 2))
LESS = (
    Contender("next to no attention", "sinks:num_sinks=4,window_size=60"),  # about what the rest of the model takes
    SINKS,
    Contender("duo, half of the heads", f"duo:heads={HALF}"),
    Contender("sirllm 1024", "sirllm:budget=1024"),
    Contender("infllm 8 x 128 + 1024", "infllm:block_size=128,num_blocks=8,local_window=1024"),
    Contender("infllm, 128 share", "infllm:block_size=128,num_blocks=8,local_window=1024,shared=128"),
    Contender("hip 512", "hip:dense_layers=0,query_block=64,refresh=8"),
    Contender("hyper 1024", "hyper:exact=1024"),
    Contender("quest 1024", "quest:budget=1024"),
    Contender("squeezed 0.3", "squeezed:keep=0.3,iterations=5"),
)
CHUNK = 1024


def prefill(dtype: torch.dtype, rounds: int) -> None:
    """Stock reads everything in one forward pass, its fastest way; bounded methods read in chunks."""
    for length, contenders in ((8192, {FULL: (8192, 1.0)}), (16384, {EXTEND: (16384, 1.25), SINKS: (CHUNK, 0.5)})):
        runs = {STOCK: (Run(STOCK, dtype), length), **{c: (Run(c, dtype), chunk) for c, (chunk, _) in contenders.items()}}
        jobs = {c.name: partial(run.prefill, length, chunk) for c, (run, chunk) in runs.items()}
        report(f"prefill {length}", interleaved(jobs, rounds), {c.name: most for c, (_, most) in contenders.items()}, dtype)


def decode(dtype: torch.dtype, rounds: int) -> None:
    """Eight tokens after 8k and 32k cached ones."""
    for length, most in ((8192, {FULL.name: 0.8}), (32768, {FULL.name: 0.4, EXTEND.name: 0.5, SINKS.name: 0.15})):
        contenders = [STOCK, STATIC, *(c for c in (FULL, EXTEND, SINKS) if c.name in most)]
        jobs = {}
        for contender in contenders:
            run = Run(contender, dtype)
            with torch.no_grad():
                cache = run.filled_cache(length)
            jobs[contender.name] = partial(run.decode, cache, 8)
        times = interleaved(jobs, rounds)
        report(f"decode at {length}", times, most, dtype)
        ratio = times[FULL.name] / times[STATIC.name]
        print(f"  full beside stock StaticCache {ratio:.2f} (at most 1.1)", flush=True)


def flat(dtype: torch.dtype, rounds: int) -> None:
    """A sink cache must not slow down with the tokens seen."""
    jobs = {}
    for length in (4096, 262144):
        run = Run(SINKS, dtype)
        with torch.no_grad():
            cache = run.filled_cache(length)
        jobs[str(length)] = partial(run.decode, cache, 32)
    times = interleaved(jobs, rounds)
    print(f"sinks decode, 256k over 4k tokens seen, {dtype}: {times['262144'] / times['4096']:.3f} (0.9 to 1.1)", flush=True)


def plain(dtype: torch.dtype, rounds: int) -> None:
    """Without a method: a prompt in chunks of 512 tokens, then single tokens, by transformers and by longreach."""
    for length in (8192, 32768):
        runs = {contender.name: Run(contender, dtype) for contender in (STOCK, READ)}
        caches: dict[str, Cache] = {}

        def read(name: str, runs: dict[str, Run] = runs, caches: dict[str, Cache] = caches, length: int = length) -> None:
            caches[name] = runs[name].prefill(length, 512)

        report(f"{length} tokens in chunks of 512", interleaved({name: partial(read, name) for name in runs}, rounds, warm=0), {}, dtype)
        report(f"a token after {length}", interleaved({n: partial(run.decode, caches[n], 8) for n, run in runs.items()}, rounds), {}, dtype)


def long(dtype: torch.dtype, rounds: int, only: tuple[str, ...] = ()) -> None:
    """A prompt of 32k tokens, and eight tokens after it, under methods that keep or read less of it; one thread, processor time.

    Args: only: those whose names begin with one of these; () is all.
    """
    threads, length = torch.get_num_threads(), 32768
    torch.set_num_threads(1)
    reading, jobs = {}, {}
    for contender in (FULL, *(each for each in LESS if each.name.startswith(only or ""))):
        run = Run(contender, dtype)
        with torch.no_grad(), prompt_end(length):
            begun = time.process_time()
            cache = run.prefill(length, CHUNK)
            reading[contender.name] = time.process_time() - begun
        jobs[contender.name] = partial(run.decode, cache, 8)
    writing = interleaved(jobs, rounds, clock=time.process_time)  # the first round cuts and clusters, and does not count
    torch.set_num_threads(threads)
    for what, times in (("prefill of 32k", reading), ("decode after 32k", {name: each / 8 for name, each in writing.items()})):
        print(f"{what}, {str(dtype).removeprefix('torch.')}: full {times[FULL.name]:.3f} s", flush=True)
        for name, seconds in times.items():
            if name != FULL.name:
                print(f"  {name} {times[FULL.name] / seconds:.1f} times as fast", flush=True)


def train(dtype: torch.dtype, rounds: int) -> None:
    """A step on sequences of 512 tokens, running and in two chunks that are far apart."""
    near, running = Contender("self_extend", "self_extend:neighbours=128,group=8"), torch.arange(512)
    heads, biased = Contender("harpe", "harpe:base_min=20000,base_max=500000"), Contender("alibi", "nope+alibi")
    jobs = {c.name: partial(Run(c, dtype).train, running) for c in (STOCK, FULL, near, heads, biased)}
    skipping = torch.cat([running[:200], running[200:] + 2000])
    jobs["self_extend, skipping"] = partial(Run(near, dtype).train, skipping)
    most = {FULL.name: 1.2, near.name: 1.5, heads.name: 1.2, biased.name: 1.3, "self_extend, skipping": 1.8}
    report("train at 512", interleaved(jobs, rounds), most, dtype)


def report(what: str, times: dict[str, float], most: dict[str, float], dtype: torch.dtype) -> None:
    """Ratios to the stock time, each beside the most that it may be."""
    stock = times[STOCK.name]
    print(f"{what}, {str(dtype).removeprefix('torch.')}: stock {stock * 1e3:.0f} ms", flush=True)
    for name, seconds in times.items():
        if name in most:
            print(f"  {name} {seconds / stock:.2f} (at most {most[name]})", flush=True)
        elif name != STOCK.name:
            print(f"  {name} {seconds / stock:.2f}", flush=True)


def main() -> None:
    """All parts, or the one named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["prefill", "decode", "flat", "plain", "long", "train"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="contenders of `long`; may be repeated [default: all]")
    args = parser.parse_args()
    for dtype in [args.dtype] if args.dtype else ["float32", "bfloat16"]:
        for part in (prefill, decode, flat, plain, long, train):
            if args.part in (None, part.__name__):
                part(getattr(torch, dtype), args.rounds, **({"only": tuple(args.only)} if part is long else {}))


if __name__ == "__main__":
    main()
