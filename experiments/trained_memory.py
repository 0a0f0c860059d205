"""Trains a model for a memory with tokens of its own, and compares how it reads then with the stock model, and with one that forgets.

    python experiments/trained_memory.py --data FOLDER --method SPEC [--model nano] [--steps 200] [--work DIR] [--evidence FOLDER]

--data holds `train/*.txt` (books); the training split of the standard library's source is added. A step reads `--length` tokens a
text; of a method whose own weights are all that it needs, only those are trained. What was trained is kept in DIR.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano import read_books
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, set_seed

import longreach
from longreach.cache.trained.base import Inserts
from longreach.core.errors import InputError, LongreachError
from longreach.core.spec import parse
from longreach.data.documents import tokenized
from longreach.data.sources import Texts
from longreach.data.stdlib import stdlib_text
from longreach.engine.cache_argument import cache_argument
from longreach.engine.weights import own_weights
from longreach.engine.window import window_of
from longreach.evaluation.by_length import entries
from longreach.evaluation.evidence import WINDOWS, Number, Subject, claim_row, counted, describe, write
from longreach.evaluation.intervals import Interval, mean_interval, share_ratio_interval
from longreach.evaluation.rows import Rows
from longreach.planning.holdings import holdings
from longreach.training.examples import Examples, collate
from longreach.training.samplers.base import Geometry
from longreach.training.samplers.full_length import FullLength

TIMES = 8  # windows to reach
TOKENS = 2048  # a step, at most
RATE, OWN_RATE, WARMUP = 3e-4, 2e-3, 0.05
MIXTURE = {"long": 0.7, "recall": 0.3}
BOOKS, SOURCE = 4_000_000, 8_000_000  # characters
SAMPLES = 20  # questions of each depth and length
METRICS = {
    "memory_rise_8x": "loss from the window to 8 windows, above the stock model's on the same tokens inside its window, nats a token",
    "memory_found_8x": "share of needles found at 8 windows, divided by the stock model's inside its window",
    "memory_cache_8x": "bytes of the cache after 8 windows, as a share of the stock model's",
}


class Trained(Subject):
    """A model that was trained, held to what the stock model loses inside its window."""

    stock: Subject

    def standard(self, *, start: int, end: int | None = None) -> dict[str, float]:
        """By text: of the stock model."""
        return self.stock.standard(start=start, end=end)

    def answers(self, spec: str, length: int, samples: int) -> dict[str, bool]:
        """At the longest length as many as the claim is judged by: a few questions tell more of their answers than of the model."""
        return super().answers(spec, length, SAMPLES if length == self.to else samples)


def trained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace, window: int) -> PreTrainedModel:
    """The model, trained now; or its weights from the folder of a run that was."""
    method, file = _inserts(args.method), args.work / f"{args.method.replace(':', '-').replace('=', '')}.pt"
    set_seed(0)
    longreach.equip(model, args.method)
    own = own_weights(model)
    learning = own if method.weights_alone else dict(model.named_parameters())
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True), strict=False)
        return model
    books, source = "\n\n".join(read_books(args.data / "train"))[:BOOKS], stdlib_text("train")[:SOURCE]
    texts = Texts(names=("books", "source"), contents=(books, source), skipped=())
    examples = Examples(
        tokenized(texts, tokenizer, args.work / "tokens.npz"), texts.contents, tokenizer, mixture=MIXTURE, sampler=FullLength(), seed=0,
        geometry=Geometry(seq_len=args.length, target=args.length, trained_window=window), count=args.steps * args.batch,
    )  # fmt: skip
    groups = [{"params": list(own.values()), "lr": OWN_RATE}]
    groups += [{"params": rest, "lr": RATE}] if (rest := [value for name, value in learning.items() if name not in own]) else []
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps=args.steps))
    model.requires_grad_(False)
    for weight in learning.values():
        weight.requires_grad_(True)
    model.train()
    for step in range(args.steps):
        rows = [examples[step * args.batch + row] for row in range(args.batch)]
        batch = collate(rows, model, apart=False)
        with longreach.apply(model, method.drawn(np.random.default_rng((1, step)), args.length, window), warn=False):
            loss = model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learning.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 10 == 0 or step == args.steps - 1:
            print(f"step {step + 1} of {args.steps}: loss {loss.item():.3f}", flush=True)
    torch.save({name: value.detach() for name, value in learning.items()}, file)
    return model.requires_grad_(True).eval()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1.0, WARMUP * steps)) * (0.1 + 0.9 * (1 - step / steps))


def _inserts(spec: str) -> Inserts:
    methods = parse(spec)
    if len(methods) != 1 or not isinstance(methods[0], Inserts):
        raise InputError(f"--method {spec}: choose one that inserts tokens of its own, as landmark:block_size=16")
    return methods[0]


@torch.no_grad()
def cache_bytes(model: PreTrainedModel, ids: torch.Tensor, spec: str, chunk: int = 256) -> float:
    """Bytes that the cache keeps after a text [1, T]."""
    cache = DynamicCache(config=model.config)
    with longreach.apply(model, spec, warn=False):
        for part in ids.split(chunk, 1):
            model(part, **cache_argument(model, cache), use_cache=True, logits_to_keep=1)
        return holdings(cache).kept


def numbers(stock: Subject, subject: Subject, spec: str, shares: float) -> dict[str, Number]:
    """What the claims ask for. Args: shares: bytes of the cache, as a share of the stock model's."""
    rises, here, inside = subject.rises(spec), subject.answers(spec, subject.to, SAMPLES), stock.answers("", subject.window, SAMPLES)
    found = share_ratio_interval(sum(here.values()), len(here), sum(inside.values()), len(inside))
    return {
        "memory_rise_8x": Number(spec=spec, interval=mean_interval(list(rises.values())), of=counted(rises, "text")),
        "memory_found_8x": Number(spec=spec, interval=found, of=counted(here, "question")),
        "memory_cache_8x": Number(spec=spec, interval=Interval(shares, shares, shares), of="1 text"),
    }


def main() -> None:
    """Train, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt")
    parser.add_argument("--method", required=True, metavar="SPEC", help="what the model is trained for, and read with")
    parser.add_argument("--model", default="nano", help="a checkpoint's folder, a hub id, or nano (default)")
    parser.add_argument("--steps", type=int, default=200, help="of training [default: 200]")
    parser.add_argument("--length", type=int, help="tokens of a text in training [default: what fills the window with inserted tokens]")
    parser.add_argument("--windows", type=int, default=WINDOWS, help=f"held-out texts of the longest length [default: {WINDOWS}]")
    parser.add_argument("--work", type=Path, default=Path("trained-memory-run"), help="folder for the runs and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the docs (docs/evidence)")
    args = parser.parse_args()
    try:
        _compare(args)
    except LongreachError as error:
        print(f"trained_memory: {error}", file=sys.stderr)
        sys.exit(2)


def _compare(args: argparse.Namespace) -> None:
    method = _inserts(args.method)
    args.work.mkdir(parents=True, exist_ok=True)
    model, tokenizer = longreach.load(args.model, dtype="float32")
    window, name = window_of(model), f"{Path(args.model).name}-memory"
    args.length = args.length or method.training_length(window)
    args.batch = max(1, TOKENS // args.length)
    held_out, rows = stdlib_text("held-out"), Rows(args.work / "rows.jsonl")
    common: dict[str, Any] = {"to": TIMES * window, "text": held_out, "windows": args.windows, "rows": rows}
    stock = Subject(model, tokenizer, name=f"{name}, stock", **common)
    learned = trained(longreach.load(args.model, dtype="float32").model, tokenizer, args, window)
    subject = Trained(learned, tokenizer, name=f"{name}, {args.method}, {args.steps} steps of {args.length}", **common)
    subject.stock = stock
    ids = torch.tensor([tokenizer(held_out[: 16 * TIMES * window], verbose=False)["input_ids"][: TIMES * window]])
    forgetting = f"sinks:num_sinks=4,window_size={window - 4}"
    sizes = {spec: cache_bytes(model if spec != args.method else learned, ids, spec) for spec in ("full", forgetting, args.method)}
    lengths = [length for length in stock.edges if length >= window]
    by = []
    for called, spec, of in (("stock model", "", stock), ("sinks", forgetting, stock), (method.name(), args.method, subject)):
        for entry in entries(called, dict.fromkeys(lengths, spec), of, SAMPLES):
            by.append(entry)
            print(f"{called} at {entry['length']}: loss {entry['loss']:.3f}, found {entry['found']:.2f}", flush=True)
    for spec, size in sizes.items():
        print(f"{spec}: {size / 2**20:.2f} MiB of cache after {ids.shape[1]} tokens", flush=True)
    command = f"python experiments/trained_memory.py --data FOLDER --method {args.method} --steps {args.steps} --length {args.length}"
    facts = {"model": name, "data": "held-out standard library", "command": command}
    found = numbers(stock, subject, args.method, sizes[args.method] / sizes["full"])
    setting = f"`{args.method}`, {window} to {TIMES * window} tokens"
    told = [
        claim_row(method.name(), claim, found[claim.metric], setting=setting, metric=METRICS[claim.metric], **facts)
        for claim in method.info.claims
        if claim.metric in METRICS
    ]
    for row in told:
        print(f"{row['metric']}: {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}", flush=True)
    if args.evidence:
        words = f"{Path(args.model).name}, then a few minutes of books, Python source and recall for each method"
        about = describe(model, name=name, trained_on=words)
        for kind, new in (("", told), ("lengths", [{**facts, "window": window, "condition": "trained", **entry} for entry in by])):
            write(args.evidence, about, [*_of_others(args.evidence / kind / f"{name}.jsonl", new), *new], kind)


def _of_others(path: Path, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was written before of methods that were not run now."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if row["method"] not in {each["method"] for each in new}]


if __name__ == "__main__":
    main()
