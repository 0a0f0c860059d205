"""Batches of texts of very different lengths: padded, without padding, packed, and one text at a time; processor time of one thread.

python benchmarks/padding.py [--encoder FOLDER] [--rounds 3] [--texts 32] [--longest 2048] [--dtype float32|bfloat16]

Lengths grow by one factor from 16 tokens to --longest. "Useful" is what the same texts take one by one, each without padding.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from _setup import VOCABULARY, interleaved, make_model
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

from longreach.decoding.reading import new_cache
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument

SHORTEST, LONGEST_FOR_ENCODERS = 16, 512
METHODS = ("padding_free", "prepack")


def batch(texts: int, longest: int, vocabulary: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Random ids and their mask [texts, longest], padded on one side."""
    lengths = torch.logspace(0, 1, texts, base=longest / SHORTEST).mul(SHORTEST).round().long()
    mask = torch.arange(longest) < lengths[torch.randperm(texts, generator=torch.Generator().manual_seed(0)), None]
    mask = (mask.flip(1) if left else mask).long()
    return torch.randint(5, vocabulary, mask.shape).masked_fill(mask == 0, 0), mask


def prefill(model: PreTrainedModel, ids: Tensor, mask: Tensor | None, spec: str) -> None:
    """Read prompts into a new cache; logits of the last token only."""
    given: dict[str, Any] = {} if mask is None else {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    with ExitStack() as stack:
        if spec:
            stack.enter_context(apply(model, spec, warn=False))
        model(ids, **given, **cache_argument(model, new_cache(model)), use_cache=True, logits_to_keep=1)


def encode(model: PreTrainedModel, ids: Tensor, mask: Tensor | None, spec: str) -> None:
    """Embed texts."""
    with ExitStack() as stack:
        if spec:
            stack.enter_context(apply(model, spec))
        model(ids, attention_mask=mask)


def one_by_one(read: Callable[..., None], model: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
    """Each text alone."""
    for row, real in zip(ids, mask.bool(), strict=True):
        read(model, row[real][None], None, "")


def compare(what: str, read: Callable[..., None], model: PreTrainedModel, ids: Tensor, mask: Tensor, rounds: int) -> None:
    """Times of one model and batch, as ratios."""
    jobs = {"padded": partial(read, model, ids, mask, ""), "useful": partial(one_by_one, read, model, ids, mask)}
    jobs |= {spec: partial(read, model, ids, mask, spec) for spec in METHODS}
    times = interleaved(jobs, rounds, clock=time.process_time)
    share = float(mask.float().mean())
    print(f"{what}, {str(model.dtype).removeprefix('torch.')}: {len(ids)} texts of {SHORTEST} to {ids.shape[1]} tokens, {share:.0%} real")
    print(f"  padded {times['padded']:.2f} s, useful {times['useful']:.2f} s")
    for spec in METHODS:
        print(
            f"  {spec} {times['padded'] / times[spec]:.2f} times as fast as padded, {times[spec] / times['useful']:.2f} of useful",
            flush=True,
        )


def main() -> None:
    """Prefill of a Llama, and an encoder's forward pass."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--encoder", help="an encoder's folder [default: random weights in the shape of MiniLM-L6]")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--texts", type=int, default=32)
    options.add_argument("--longest", type=int, default=2048, help="tokens")
    options.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = options.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, args.dtype)
    shape = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    encoder = (AutoModel.from_pretrained(args.encoder) if args.encoder else BertModel(shape)).to(dtype).eval()
    longest = min(args.longest, LONGEST_FOR_ENCODERS)
    compare("encode", encode, encoder, *batch(args.texts, longest, encoder.config.vocab_size, left=False), args.rounds)
    compare("prefill", prefill, make_model(dtype), *batch(args.texts, args.longest, VOCABULARY, left=True), args.rounds)


if __name__ == "__main__":
    main()
