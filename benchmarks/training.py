"""A training step with the logits of its whole sequence, and with those of a chunk at a time: peak memory above the model, and seconds.

    python benchmarks/training.py

Each kind runs in a process of its own. The vocabulary is as large as that of small open models, and the sequence has 4096 tokens.
"""

import statistics
import subprocess
import sys
import time

import torch
from _setup import make_model

from longreach.evaluation.memory import PeakMemory
from longreach.training.chunked_loss import LOGITS, ChunkedLoss

VOCABULARY, TOKENS, ROUNDS = 49_152, 4096, 3
KINDS = ("whole", "chunks")


def measure(kind: str, dtype: torch.dtype) -> None:
    """Print the peak of a step in MiB, and its median seconds."""
    model = make_model(torch.float32, VOCABULARY).train()
    model.config.use_cache = False
    loss = ChunkedLoss(model, LOGITS // VOCABULARY)
    ids = torch.randint(0, VOCABULARY, (1, TOKENS))

    def step(tokens: int) -> None:
        inputs = {"input_ids": ids[:, :tokens], "labels": ids[:, :tokens]}
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            (model(**inputs).loss if kind == "whole" else loss(model, inputs)).backward()
        model.zero_grad()

    step(256)  # first-use allocations of torch are not the step's
    with PeakMemory(torch.device("cpu")) as peak:
        step(TOKENS)
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        step(TOKENS)
        times.append(time.perf_counter() - begun)
    print(peak.bytes / 2**20, statistics.median(times))


def main() -> None:
    """Both kinds in both precisions, or the one given."""
    if len(sys.argv) == 3:
        measure(sys.argv[1], getattr(torch, sys.argv[2]))
        return
    for dtype in ("float32", "bfloat16"):
        for kind in KINDS:
            command = [sys.executable, __file__, kind, dtype]
            peak, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
            print(f"step of {TOKENS} tokens, {dtype}, logits {kind}: peak {float(peak):.0f} MiB, {float(seconds):.2f} s", flush=True)


if __name__ == "__main__":
    main()
