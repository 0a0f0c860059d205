"""Peak memory of a prefill in chunks, above the loaded model: each length in a process of its own.

    python benchmarks/memory.py

A method with a window stays flat; full attention grows with its cache, linearly; a mask or logits of the whole text would grow as n^2
or with the vocabulary.
"""

import subprocess
import sys

import torch
from _setup import Contender, Run

from longreach.evaluation.memory import PeakMemory

CHUNK = 512
CASES = {"sinks:num_sinks=4,window_size=1020": (4096, 16384, 65536), "full": (4096, 8192, 16384)}


def measure(spec: str, length: int) -> None:
    """Print the peak of one prefill, in MiB."""
    run = Run(Contender(spec, spec), torch.float32)
    with torch.no_grad():
        run.prefill(CHUNK, CHUNK)  # first-use allocations of torch are not the prefill's
        with PeakMemory(torch.device("cpu")) as peak:
            run.prefill(length, CHUNK)
    print(peak.bytes / 2**20)


def main() -> None:
    """All cases, or the one given."""
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    for spec, lengths in CASES.items():
        for length in lengths:
            out = subprocess.run([sys.executable, __file__, spec, str(length)], capture_output=True, text=True, check=True).stdout  # noqa: S603
            print(f"prefill {length} under {spec}: peak {float(out):.0f} MiB above the model", flush=True)


if __name__ == "__main__":
    main()
