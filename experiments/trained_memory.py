"""Tunes nano to use caches that need training, and compares how it reads beyond its window with what it does without them.

    python experiments/trained_memory.py --data FOLDER [--only METHOD]... [--steps 40] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). Texts of two windows are trained on, and texts of eight are read. A run that was
stopped goes on when the same command is given again.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from learned_positions import encode
from nano import read_books
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import longreach
from longreach.cache.trained.base import AmongTexts
from longreach.core import registry
from longreach.core.spec import parse
from longreach.data.sources import Texts
from longreach.engine.among import among_texts
from longreach.evaluation.by_length import entries
from longreach.evaluation.evidence import Number, Subject, claim_row, counted, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.rows import Rows
from longreach.training.plan import TuneConfig
from longreach.training.tune import tune

WINDOW, TIMES, TRAINED = 512, 8, 2  # tokens; windows that are read, and of a text that is trained on
WINDOWS = 8  # held-out texts
SAMPLES = 20  # questions of each depth and length
BATCH, RATE = 8, 3e-4
BOOKS = 6_000_000  # characters
PLACES = 4  # of each held-out book, where its attention is looked at
MODEL = "nano-memory"  # in the docs
STOCK, SINKS = "stock model", f"sinks:window_size={WINDOW - 4}"
RUNS: dict[str, dict[str, str]] = {
    "focused": {
        "focused": f"focused:window_size={WINDOW},texts={BATCH}",
        "focused, without negatives": f"focused:window_size={WINDOW},texts=1",
    },
}
METRICS = {
    "focused_mass_gain": "share of the attention to the memory that goes to a text's own keys, among those of six texts, above that of "
    "the model trained without negatives",
    "focused_negatives_gain_8x": "loss at 4 to 8 windows, below that of the model trained without negatives, nats a token",
    "focused_gain_8x": "loss at 4 to 8 windows, below that of the stock model on the same tokens inside its window, nats a token",
}
_TOKENS = "tokens.npz"  # of a run; those of one serve all


def config(spec: str, steps: int) -> TuneConfig:
    """A run of as many tokens as every other."""
    return TuneConfig(
        target=TRAINED * WINDOW, method=spec, sampler="full_length", steps=steps, batch_size=BATCH, lr=RATE, full=True,
        mixture={"long": 0.7, "recall": 0.3}, warmup=0.05,
    )  # fmt: skip


def trained(label: str, spec: str, args: argparse.Namespace, texts: Texts, held_out: str) -> PreTrainedModel:
    """The model trained under a spec, now or before."""
    model, tokenizer = longreach.load("nano", dtype="float32")
    run = args.work / label.replace(", ", "-").replace(" ", "-")
    run.mkdir(parents=True, exist_ok=True)
    if not (run / _TOKENS).exists() and (others := list(args.work.glob(f"*/{_TOKENS}"))):
        shutil.copy(others[0], run)
    tuned = tune(model, tokenizer, texts, config(spec, args.steps), run, held_out=held_out)
    print(f"{label}: loss inside the window {tuned.gate.rise:+.2%}", flush=True)
    return tuned.model


def passages(tokenizer: PreTrainedTokenizerBase, books: list[str]) -> list[Tensor]:
    """Ids [books, 2 WINDOW] of the same share of each book, at several shares of it."""
    found = []
    for place in range(PLACES):
        starts = [len(book) * (place + 1) // (PLACES + 1) for book in books]
        rows = [encode(tokenizer, [book[start:]], 2 * WINDOW) for book, start in zip(books, starts, strict=True)]
        found.append(torch.from_numpy(np.stack(rows)))
    return found


@torch.no_grad()
def own_share(model: PreTrainedModel, spec: str, ids: Tensor, texts: int) -> list[float]:
    """Of each of the texts [B, 2 WINDOW]: of the attention that its second window pays to the first ones of `texts` texts, the share that
    goes to its own, averaged over queries, heads and the layers with a memory.
    """
    inputs: dict[int, Tensor] = {}

    def see(index: int, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        inputs[index] = kwargs["hidden_states"]

    with longreach.apply(model, spec, warn=False), among_texts(model, texts):
        hooks = [
            layer.self_attn.register_forward_pre_hook(partial(see, index), with_kwargs=True)
            for index, layer in enumerate(model.model.layers)
        ]
        model(ids, use_cache=False)
        for hook in hooks:
            hook.remove()
    places = torch.arange(WINDOW)[None]
    rotary, shares = model.model.rotary_emb, []
    for index in (1, 2, 3):  # a quarter, half and three quarters of nano's five
        attention, hidden = model.model.layers[index].self_attn, inputs[index]
        q, k = (
            projection(part).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection, part in ((attention.q_proj, hidden[:, WINDOW:]), (attention.k_proj, hidden[:, :WINDOW]))
        )
        q = apply_rotary_pos_emb(q, q, *rotary(q, places))[0]  # memory keys stand at place 0, where nothing is turned
        k = k.repeat_interleave(attention.num_key_value_groups, 1)
        mass = torch.stack([(q @ k.roll(-other, 0).mT * attention.scaling).logsumexp(-1) for other in range(texts)])
        shares.append(mass.softmax(0)[0].flatten(1).mean(1))
    return torch.stack(shares).mean(0).tolist()


def difference(found: Mapping[str, Subject], masses: Mapping[str, list[float]], metric: str) -> tuple[dict[str, float], str]:
    """The number that a metric asks for, by text, and what the texts are."""
    method = metric.partition("_")[0]
    first, second = RUNS[method].values()
    ours, others = found[first], found[second]
    if metric == "focused_mass_gain":
        return {str(place): gain for place, gain in enumerate(np.subtract(masses[first], masses[second]).tolist())}, "passage"
    losses = ours.losses(first, start=TIMES * WINDOW // 2, end=TIMES * WINDOW)
    if metric == "focused_gain_8x":
        above = found[STOCK].standard(start=TIMES * WINDOW // 2, end=TIMES * WINDOW)
    else:
        above = others.losses(second, start=TIMES * WINDOW // 2, end=TIMES * WINDOW)
    return {text: above[text] - loss for text, loss in losses.items()}, "text"


def claims(method: str, found: Mapping[str, Subject], masses: Mapping[str, list[float]], **facts: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim of a method."""
    rows = []
    spec = next(iter(RUNS[method].values()))
    for claim in registry.get(method).info.claims:
        by, what = difference(found, masses, claim.metric)
        finding = Number(spec=spec, interval=mean_interval(list(by.values())), of=counted(by, what))
        setting = f"`{spec}`, trained on {TRAINED * WINDOW}, read to {TIMES * WINDOW} tokens"
        rows.append(claim_row(method, claim, finding, setting=setting, metric=METRICS[claim.metric], **facts))
    return rows


def by_length(found: Mapping[str, Subject], methods: list[str]) -> list[dict[str, Any]]:
    """Loss and questions at each length: of the stock model, as it is and under sinks, and of each method untrained and trained."""
    plain = found[STOCK]
    lengths = [length for length in plain.edges if length >= WINDOW]
    rows = entries(STOCK, dict.fromkeys(lengths, ""), plain, SAMPLES)
    rows += entries("sinks", dict.fromkeys(lengths, SINKS), plain, SAMPLES)
    for method in methods:
        untrained = next(iter(RUNS[method].values()))
        rows += entries(f"{method}, untrained", dict.fromkeys(lengths, untrained), plain, SAMPLES)
        for label, spec in RUNS[method].items():
            rows += entries(label, dict.fromkeys(lengths, spec), found[spec], SAMPLES)
    for row in rows:
        print(f"{row['method']} at {row['length']}: loss {row['loss']:.3f}, above the window's {row['rise']:+.3f}, found {row['found']}")
    return rows


def main() -> None:
    """Train each, measure each, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--only", action="append", choices=list(RUNS), help="only this method; may be repeated")
    parser.add_argument("--steps", type=int, default=40, help="of each run [default: 40]")
    parser.add_argument("--work", type=Path, default=Path("trained-memory-run"), help="folder for the runs and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the docs (docs/evidence)")
    args = parser.parse_args()
    methods = args.only or list(RUNS)
    texts = Texts(names=("books",), contents=("\n\n".join(read_books(args.data / "train"))[:BOOKS],), skipped=())
    books = read_books(args.data / "valid")
    held_out = "\n\n".join(books)
    model, tokenizer = longreach.load("nano", dtype="float32")
    rows = Rows(args.work / "rows.jsonl")
    common: dict[str, Any] = {"to": TIMES * WINDOW, "text": held_out, "windows": WINDOWS, "rows": rows}
    found = {STOCK: Subject(model, tokenizer, name=f"nano, {MODEL}", **common)}
    masses: dict[str, list[float]] = {}
    for method in methods:
        for label, spec in RUNS[method].items():
            tuned = trained(label, spec, args, texts, held_out)
            found[spec] = Subject(tuned, tokenizer, name=f"{MODEL}, {label}, {args.steps} steps", **common)
            if isinstance(parse(spec)[0], AmongTexts):
                masses |= attention_masses(label, spec, tuned, model, passages(tokenizer, books))
    command = "python experiments/trained_memory.py --data FOLDER" + "".join(f" --only {method}" for method in args.only or ())
    facts = {"model": MODEL, "data": "held-out books", "command": f"{command} --steps {args.steps}"}
    by = [{**facts, "window": WINDOW, "condition": "trained", **row} for row in by_length(found, methods)]
    told = [row for method in methods for row in claims(method, found, masses, **facts)]
    for row in told:
        print(f"{row['method']}: {row['metric']}: {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        words = f"nano, then {args.steps * BATCH * TRAINED * WINDOW / 1e6:.2f}M tokens of books and recall under each method"
        about = describe(model, name=MODEL, trained_on=f"{words}, in texts of {TRAINED * WINDOW} tokens")
        for kind, new in (("", told), ("lengths", by)):
            write(args.evidence, about, [*of_others(args.evidence / kind / f"{MODEL}.jsonl", new), *new], kind)


def attention_masses(label: str, spec: str, tuned: PreTrainedModel, stock: PreTrainedModel, places: list[Tensor]) -> dict[str, list[float]]:
    """The share of their own keys among those of all books, by passage; prints it for fewer texts, and of the model before training."""
    for name, model in ((f"{label}, untrained", stock), (label, tuned)):
        books = len(places[0])
        for texts in sorted({2, min(4, books), books}):
            shares = [share for ids in places for share in own_share(model, spec, ids, texts)]
            print(f"{name}: {fmean(shares):.3f} of the attention to memory goes to a text's own, of {texts} texts", flush=True)
    return {spec: shares}


def of_others(path: Path, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was written before of methods that were not run now."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if row["method"] not in {each["method"] for each in new}]


if __name__ == "__main__":
    main()
