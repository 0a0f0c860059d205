"""A million tokens through one cache: memory and time a token must stay flat, and what stood at the beginning be found to the end.

    python benchmarks/soak.py [MODEL] [--tokens 1M] [--method SPEC]... [--passkey] [--keep]

Reads Python's standard library. Facts stand in the first hundredth, and are asked for again and again; each question is taken back. One
line at every doubling: resident memory of the process, processor time a token since the line before, and how many of the numbers are the
likeliest of ten. With --passkey it reads the repeated sentences of the passkey task, with one number in their first hundredth.
With --keep the steps of each run are kept in docs/evidence/soak, from which `make docs` draws the table of docs/guide-memory.md. It has
the usual methods, sinks as it is and infllm with --passkey.
"""

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import longreach
from longreach.core.errors import LongreachError
from longreach.core.lengths import parse_length
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import CHUNK, new_cache, read
from longreach.engine.prompt import prompt_end
from longreach.evaluation.tasks.retrieval._retrieval import Frame
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.tasks.retrieval.passkey import Passkey

ROWS = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "soak"
USUAL = ("sinks:num_sinks=4,window_size=508", "infllm:block_size=64,num_blocks=3,local_window=256,shared=256,storage=disk")
FIRST = 16384
FACTS = 8  # questions that are asked, each about a fact of its own


def resident() -> float:
    """MiB of the process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def haystack(encoder: Encoder, tokens: int, passkey: bool) -> tuple[torch.Tensor, list[Frame]]:
    """The text [1, T], and what stands in its first hundredth. Raises: LongreachError for a library that is too short."""
    ids = list(encoder.prefix)
    if passkey:
        frames = [Passkey().frame(encoder, 0, 0)]
        filler = Passkey().filler(encoder, np.zeros(0, dtype=np.int32), tokens).tolist()
        ids += frames[0].head
    else:
        frames = [Needle().frame(encoder, 0, sample) for sample in range(FACTS)]
        filler = encoder.first_tokens(stdlib_text("train"), tokens)
    if len(filler) < tokens:
        raise LongreachError(f"the standard library has {len(filler)} tokens with this tokenizer; give fewer --tokens")
    step = tokens // 100 // (len(frames) + 1)
    for number, frame in enumerate(frames):  # all of them in the first hundredth
        ids += [*filler[number * step : (number + 1) * step], *frame.fact]
    return torch.tensor([[*ids, *filler[len(frames) * step :]][:tokens]], dtype=torch.int32), frames


def soak(name: str, spec: str, tokens: int, *, passkey: bool) -> dict[str, object]:
    """Read, and print a line at every doubling. Returns: the run, for its file."""
    steps: list[dict[str, object]] = []
    model, tokenizer = longreach.load(name)
    whole, frames = haystack(Encoder(tokenizer), tokens, passkey)
    halts = [0, *(FIRST << n for n in range(40) if FIRST << n < tokens), tokens]
    print(f"{name} under {spec}", flush=True)
    with longreach.apply(model, spec, warn=False), prompt_end(tokens):
        cache = new_cache(model)
        for begin, end in pairwise(halts):
            began = time.process_time()
            for start in range(begin, end, CHUNK):
                part = whole[:, start : min(start + CHUNK, end)].long()
                for _ in read(model, part, cache=cache, chunk_size=CHUNK, logits="last"):
                    pass
            seconds, memory, found = time.process_time() - began, resident(), 0
            taken = longreach.snapshot(cache)
            for frame in frames:
                longreach.restore(cache, taken)
                for _, logits in read(model, torch.tensor([frame.question]), cache=cache, chunk_size=CHUNK, logits="last"):
                    found += int(logits[0, -1, [answer[0] for answer in frame.answers]].argmax()) == frame.right
            longreach.restore(cache, taken)
            each = 1e3 * seconds / (end - begin)
            print(f"  {end:>9,} tokens: {memory:.0f} MiB, {each:.3f} ms a token, {found} of {len(frames)} facts", flush=True)
            steps.append({"tokens": end, "mib": round(memory), "ms": round(each, 3), "found": found, "facts": len(frames)})
    return {"model": Path(name).name, "spec": spec, "text": "passkey" if passkey else "standard library", "steps": steps}


def main() -> None:
    """One model under some methods."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="nano")
    options.add_argument("--tokens", default="1M", help="[default: 1M]")
    options.add_argument(
        "--method", action="append", metavar="SPEC", help="may be repeated [default: sinks and infllm with blocks on disk]"
    )
    options.add_argument("--passkey", action="store_true", help="repeated sentences and one number, as where passkeys are looked for")
    options.add_argument("--keep", action="store_true", help="write each run to docs/evidence/soak")
    args = options.parse_args()
    try:
        for spec in args.method or USUAL:
            run = soak(args.model, spec, parse_length(args.tokens), passkey=args.passkey)
            if args.keep:
                ROWS.mkdir(parents=True, exist_ok=True)
                path = ROWS / f"{run['model']}-{spec.partition(':')[0]}.json"
                path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    except LongreachError as error:
        print(f"soak: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
