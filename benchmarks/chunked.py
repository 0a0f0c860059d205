"""Memory and time of one attention layer with a soft cap: eager, as transformers computes it, and in chunks; each in a process of its own.

python benchmarks/chunked.py [--tokens 4096 16384] [--heads 1] [--spec chunked]

Memory is the most that the process held above what it held before the layer ran; time is that of its processor.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from longreach.core.spec import parse
from longreach.engine.tiled import Tiling, tiled_attention

HEAD_DIM, SOFTCAP = 64, 50.0
WAYS, PASSES = ("eager", "chunked"), ("forward", "both")


class Layer(nn.Module):
    """What eager attention asks of its layer."""

    num_key_value_groups, head_dim = 1, HEAD_DIM


def run(way: str, passes: str, tokens: int, heads: int, spec: str) -> dict[str, float]:
    """One causal layer on random vectors. Returns: bytes and seconds."""
    torch.set_num_threads(1)
    q, k, v = (torch.randn(1, heads, tokens, HEAD_DIM, requires_grad=passes == "both") for _ in range(3))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with torch.set_grad_enabled(passes == "both"):
        out = attend(way, q, k, v, spec)
        if passes == "both":
            out.sum().backward()
    seconds = time.process_time() - begun
    return {"bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), "seconds": seconds}


def attend(way: str, q: Tensor, k: Tensor, v: Tensor, spec: str) -> Tensor:
    """Causal attention, [B, T, H, D]."""
    tokens = q.shape[2]
    if way == "eager":
        mask = torch.full((1, 1, tokens, tokens), torch.finfo(q.dtype).min).triu_(1)
        found: Tensor = eager_attention_forward(Layer(), q, k, v, mask, scaling=HEAD_DIM**-0.5, softcap=SOFTCAP)[0]
        return found
    method: Any = parse(spec)[0]

    def causal(rows: slice, columns: slice) -> Tensor:
        return (torch.arange(rows.start, rows.stop)[:, None] >= torch.arange(columns.start, columns.stop))[None, None]

    return tiled_attention(q, k, v, Tiling(method.sizes(), causal, HEAD_DIM**-0.5, SOFTCAP)).transpose(1, 2)


def main() -> None:
    """Every length, one process for each way and pass."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    options.add_argument("--heads", type=int, default=1)
    options.add_argument("--spec", default="chunked")
    options.add_argument("--only", nargs=2, metavar=("WAY", "PASSES"), help="in this very process, and print numbers alone")
    args = options.parse_args()
    if args.only:
        print(json.dumps(run(*args.only, args.tokens[0], args.heads, args.spec)))
        return
    for tokens in args.tokens:
        for passes in PASSES:
            found = {}
            for way in WAYS:
                given = ["--only", way, passes, "--tokens", str(tokens), "--heads", str(args.heads), "--spec", args.spec]
                done = subprocess.run([sys.executable, __file__, *given], capture_output=True, text=True, check=True)  # noqa: S603
                found[way] = json.loads(done.stdout)
            eager, ours = found["eager"], found["chunked"]
            what = {"forward": "forward", "both": "forward and backward"}[passes]
            print(f"{tokens} tokens, {args.heads} head(s), {what}:", flush=True)
            for way, each in found.items():
                print(f"  {way} {each['bytes'] / 2**20:.0f} MiB, {each['seconds']:.2f} s", flush=True)
            print(
                f"  {eager['bytes'] / ours['bytes']:.0f} times less memory, {ours['seconds'] / eager['seconds']:.2f} of the time",
                flush=True,
            )


if __name__ == "__main__":
    main()
