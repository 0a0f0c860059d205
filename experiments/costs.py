"""Trains a small Llama from scratch under each way to attend, on short texts, and holds its loss at any length against what it reads.

    python experiments/costs.py --data FOLDER [--methods SPEC ...] [--tokens 1.2M] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). Each model is kept in its folder in DIR, with its method; a run that was killed goes
on when the same command is given again. `rope` is full attention; LOCAL, the query's block and the one before, is what others that read few
keys are compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from learned_positions import differences, show
from scratch import METRICS as OF_SCRATCH
from scratch import ROPE, TARGET, WINDOW, books, by_length, difference, losses, model_config, options, publish, spec_of, trained
from torch import Tensor

import longreach
from longreach.attention.base import Places
from longreach.core.bands import PROBE, Band
from longreach.core.memory import View
from longreach.core.spec import parse
from longreach.evaluation.evidence import Number, claim_row, counted
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.rows import Row, Rows
from longreach.training.pretrain import PretrainConfig

MODEL = "llama-costs"  # in the docs
LOCAL = "mixed_span:full_layers=0,block_size=16"
METHODS = (
    ROPE, "lssa:power=3", "lssa", LOCAL, "combiner:segment=16", "routing:num_clusters=8,window_size=16", "extractor", "extractor:form=he",
    "extractor:form=we", "extractor:form=me", "longvq:num_codes=32,window_size=16",
)  # fmt: skip
METRICS = {
    "costs_inside_above_full": "loss inside the window above that of full attention, nats a token",
    "costs_inside_above_local": "loss inside the window above that of local attention in blocks of 16, nats a token",
}


def share_read(name: str, length: int, layers: int) -> float:
    """Of the keys before it and its own, how many a query of a text is compared with, on average over queries, layers and heads."""
    policies = [method for method in parse(spec_of(name)) if isinstance(method, Places)] if spec_of(name) else []
    i = torch.arange(length)
    total = 0.0
    for index in range(layers):
        layer = replace(PROBE, layer_idx=index, num_layers=layers, full_layers=tuple(range(layers)))
        read = policies[0].keys_read(i) if policies else i + 1
        total += float((in_bands(policies[0].bands(layer), i) if read is None else read).double().mean())
    return total / layers / float((i + 1).double().mean())


def in_bands(views: Sequence[View], i: Tensor) -> Tensor:
    """How many keys the queries with the indices `i` [n] see, [n]."""
    query, key, total = i[:, None], i[None], torch.zeros_like(i)
    for band in views:
        assert isinstance(band, Band)  # noqa: S101 - methods with other views say what they read
        apart = query // band.chunk - key // band.chunk
        seen = (key <= query) & (apart >= band.lo) & (key >= band.after)
        if band.hi is not None:
            seen &= apart <= band.hi
        if band.sinks is not None:
            seen &= key < band.sinks
        total = total + seen.sum(1)
    return total


def number(found: Mapping[str, list[Row]], name: str, metric: str) -> dict[str, float]:
    """By text: what a metric asks for."""
    if metric in OF_SCRATCH:
        return difference(found, name, metric)
    other = ROPE if metric == "costs_inside_above_full" else LOCAL
    return differences(found[name], found[other], lambda row: row.length <= WINDOW)


def evidence(found: Mapping[str, list[Row]], names: Sequence[str], command: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim that these models can show."""
    rows, words, config = [], METRICS | OF_SCRATCH, model_config(longreach.load("nano").tokenizer)
    for name in names:
        method = parse(spec_of(name))[-1] if spec_of(name) else None
        for claim in method.info.claims if method is not None else ():  # those of this very setting
            if method is None or claim.metric not in words:
                continue
            by = number(found, name, claim.metric)
            finding = Number(spec=name, interval=mean_interval(list(by.values())), of=counted(by, "text"))
            read = share_read(name, TARGET, config.num_hidden_layers)
            setting = f"`{name}`, trained on {WINDOW}, read to {TARGET} tokens, where a query reads {read:.0%} of the keys"
            facts = {"model": MODEL, "data": "held-out books", "setting": setting, "metric": words[claim.metric], "command": command}
            rows.append(claim_row(method.name(), claim, finding, **facts))
    return rows


def main() -> None:
    """Train each, measure each, compare."""
    args = options(__doc__, METHODS, f"{ROPE}, {LOCAL}, and specs to compare with them", "1.2M", "costs-run")
    config = PretrainConfig(tokens=int(float(args.tokens.rstrip("M")) * 1e6), seq_len=WINDOW, compile=False)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = longreach.load("nano").tokenizer
    ids, valid, held_out = books(args.data, tokenizer, config)
    found: dict[str, list[Row]] = {}
    rows = Rows(args.work / "rows.jsonl")
    for name in args.methods:
        found |= losses(trained(name, tokenizer, ids, config, args.work, held_out), tokenizer, name, valid, rows)
    show(found)
    shape = model_config(tokenizer)
    for name in args.methods:
        read = share_read(name, TARGET, shape.num_hidden_layers)
        print(f"{name:46}reads {read:.1%} of the keys at {TARGET} tokens")
    if not {ROPE, LOCAL} <= set(args.methods):
        return
    command = f"python experiments/costs.py --data FOLDER --tokens {args.tokens}"
    facts = {"model": MODEL, "window": WINDOW, "data": "held-out books", "command": command}
    publish(evidence(found, args.methods, command), by_length(found, args.methods, facts), MODEL, config, args.evidence)


if __name__ == "__main__":
    main()
