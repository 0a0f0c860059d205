"""Tunes nano to read window by window with a memory, and compares how it reads beyond its window with what it does without.

    python experiments/trained_windows.py --data FOLDER [--model nano] [--only METHOD]... [--steps 40] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). Texts of two windows are trained on, and texts of eight are read. A run that was
stopped goes on when the same command is given again.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
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
from longreach.cache.base import CachePolicy
from longreach.cache.trained.base import AmongTexts, Recurrent
from longreach.core import registry
from longreach.core.spec import parse
from longreach.data.sources import Texts
from longreach.engine.among import among_texts
from longreach.engine.contexts import contexts
from longreach.engine.examine import examine
from longreach.engine.setup import Setup
from longreach.engine.weights import own_weights
from longreach.engine.window import window_of
from longreach.evaluation.by_length import entries
from longreach.evaluation.evidence import Number, Subject, claim_row, counted, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.rows import Rows
from longreach.training.plan import TuneConfig
from longreach.training.tune import tune

TIMES, TRAINED = 8, 2  # windows that are read, and of a text that is trained on
TEXTS = 8  # held-out ones
SAMPLES = 8  # questions of each depth and length
BATCH, RATE = 8, 3e-4
BOOKS = 6_000_000  # characters
PLACES = 4  # of each held-out book, where its attention is looked at
MODEL = "nano-windows"  # in the docs
STOCK = "stock model"
METHODS = ("focused", "recurrent_window")
EMPTY = "nothing carried"  # the trained model, whose windows are read by themselves
METRICS = {
    "focused_mass_gain": "share of the attention to the memory that goes to a text's own keys, among those of six texts, above that of "
    "the model trained without negatives",
    "focused_negatives_gain_8x": "loss at 4 to 8 windows, below that of the model trained without negatives, nats a token",
    "recurrent_gain_8x": "loss at 4 to 8 windows, below that of the same trained model with nothing carried, nats a token",
    "focused_gain_8x": "loss at 4 to 8 windows, below that of the stock model on the same tokens inside its window, nats a token",
}


def runs(method: str, window: int) -> dict[str, str]:
    """Label -> the spec that a model is trained under; the first is the method, a second one a control."""
    if method == "recurrent_window":
        return {method: f"recurrent_window:window_size={window}"}
    return {method: f"focused:window_size={window},texts={BATCH}", f"{method}, without negatives": f"focused:window_size={window},texts=1"}


def config(spec: str, window: int, steps: int) -> TuneConfig:
    """A run of as many tokens as every other."""
    return TuneConfig(
        target=TRAINED * window, method=spec, sampler="full_length", steps=steps, batch_size=BATCH, lr=RATE, full=True,
        mixture={"long": 0.7, "recall": 0.3}, warmup=0.05,
    )  # fmt: skip


def trained(label: str, spec: str, args: argparse.Namespace, texts: Texts, held_out: str) -> PreTrainedModel:
    """The model trained under a spec, now or before."""
    model, tokenizer = longreach.load(args.model, dtype="float32")
    run = args.work / label.replace(", ", "-").replace(" ", "-")
    settings = config(spec, window_of(model), args.steps)
    tuned = tune(model, tokenizer, texts, settings, run, held_out=held_out, tokens=args.work / "tokens.npz")
    print(f"{label}: loss inside the window {tuned.gate.rise:+.2%}", flush=True)
    return tuned.model


def passages(tokenizer: PreTrainedTokenizerBase, books: list[str], window: int) -> list[Tensor]:
    """Ids [books, 2 windows] of the same share of each book, at several shares of it."""
    found = []
    for place in range(PLACES):
        starts = [len(book) * (place + 1) // (PLACES + 1) for book in books]
        rows = [encode(tokenizer, [book[start:]], 2 * window) for book, start in zip(books, starts, strict=True)]
        found.append(torch.from_numpy(np.stack(rows)))
    return found


@torch.no_grad()
def own_share(model: PreTrainedModel, spec: str, ids: Tensor, texts: int) -> list[float]:
    """Of each of the texts [B, 2 windows]: of the attention that its second window pays to the first ones of `texts` texts, the share that
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
    policies = [method for method in parse(spec) if isinstance(method, CachePolicy)]
    window, views, rotary, shares = ids.shape[1] // 2, Setup(policies=policies).views, model.model.rotary_emb, []
    places, layers = torch.arange(window)[None], contexts(model, examine(model, window), window)
    for index in (layer.layer_idx for layer in layers if any(getattr(view, "shared", False) for view in views(layer))):
        attention, hidden = model.model.layers[index].self_attn, inputs[index]
        q, k = (
            projection(part).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection, part in ((attention.q_proj, hidden[:, window:]), (attention.k_proj, hidden[:, :window]))
        )
        q = apply_rotary_pos_emb(q, q, *rotary(q, places))[0]  # memory keys stand at place 0, where nothing is turned
        k = k.repeat_interleave(attention.num_key_value_groups, 1)
        mass = torch.stack([(q @ k.roll(-other, 0).mT * attention.scaling).logsumexp(-1) for other in range(texts)])
        shares.append(mass.softmax(0)[0].flatten(1).mean(1))
    return torch.stack(shares).mean(0).tolist()


def difference(
    specs: Sequence[str], found: Mapping[str, Subject], masses: Mapping[str, list[float]], metric: str
) -> tuple[dict[str, float], str]:
    """The number that a metric asks for, by text, and what the texts are. Args: specs: of the method and its control."""
    ours, control = specs[0], specs[-1]
    if metric == "focused_mass_gain":
        return {str(place): gain for place, gain in enumerate(np.subtract(masses[ours], masses[control]).tolist())}, "passage"
    part = {"start": found[STOCK].to // 2, "end": found[STOCK].to}
    losses = found[ours].losses(ours, **part)
    if metric == "focused_gain_8x":
        above = found[STOCK].standard(**part)
    else:
        above = found[EMPTY if metric == "recurrent_gain_8x" else control].losses(control, **part)
    return {text: above[text] - loss for text, loss in losses.items()}, "text"


def claims(method: str, found: Mapping[str, Subject], masses: Mapping[str, list[float]], **facts: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim of a method."""
    rows = []
    specs = list(runs(method, found[STOCK].window).values())
    for claim in registry.get(method).info.claims:
        by, what = difference(specs, found, masses, claim.metric)
        finding = Number(spec=specs[0], interval=mean_interval(list(by.values())), of=counted(by, what))
        setting = f"`{specs[0]}`, trained on {TRAINED * found[STOCK].window}, read to {found[STOCK].to} tokens"
        rows.append(claim_row(method, claim, finding, setting=setting, metric=METRICS[claim.metric], **facts))
    return rows


def by_length(found: Mapping[str, Subject], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Loss and questions at each length: of the stock model, as it is and under sinks, and of each method untrained and trained."""
    plain = found[STOCK]
    window = plain.window
    lengths = [length for length in plain.edges if length >= window]
    rows = entries(STOCK, dict.fromkeys(lengths, ""), plain, SAMPLES)
    rows += entries("sinks", dict.fromkeys(lengths, f"sinks:window_size={window - 4}"), plain, SAMPLES)
    for method in methods:
        untrained = next(iter(runs(method, window).values()))
        longreach.equip(plain.model, untrained)  # as it is before training
        rows += entries(f"{method}, untrained", dict.fromkeys(lengths, untrained), plain, SAMPLES)
        for label, spec in runs(method, window).items():
            rows += entries(label, dict.fromkeys(lengths, spec), found[spec], SAMPLES)
    for row in rows:
        print(f"{row['method']} at {row['length']}: loss {row['loss']:.3f}, above the window's {row['rise']:+.3f}, found {row['found']}")
    return rows


def main() -> None:
    """Train each, measure each, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--model", default="nano", help="a folder of a Llama, or nano (default)")
    parser.add_argument("--only", action="append", choices=METHODS, help="only this method; may be repeated")
    parser.add_argument("--steps", type=int, default=40, help="of each run [default: 40]")
    parser.add_argument("--work", type=Path, default=Path("trained-windows-run"), help="folder for the runs and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the docs (docs/evidence)")
    args = parser.parse_args()
    methods: Sequence[str] = args.only or METHODS
    texts = Texts(names=("books",), contents=("\n\n".join(read_books(args.data / "train"))[:BOOKS],), skipped=())
    books = read_books(args.data / "valid")
    held_out = "\n\n".join(books)
    model, tokenizer = longreach.load(args.model, dtype="float32")
    window = window_of(model)
    words = f"{Path(args.model).name}, then {args.steps * BATCH * TRAINED * window / 1e6:.2f}M tokens of books and recall under each method"
    about = describe(
        model, name=MODEL, trained_on=f"{words}, in texts of {TRAINED * window} tokens"
    )  # as it is, without weights of methods
    rows = Rows(args.work / "rows.jsonl")
    common: dict[str, Any] = {"to": TIMES * window, "text": held_out, "windows": TEXTS, "rows": rows}
    found = {STOCK: Subject(model, tokenizer, name=f"stock, {MODEL}", **common)}
    masses: dict[str, list[float]] = {}
    for method in methods:
        if issubclass(registry.get(method), AmongTexts):
            attention_masses(f"{method}, untrained", next(iter(runs(method, window).values())), model, passages(tokenizer, books, window))
        for label, spec in runs(method, window).items():
            tuned = trained(label, spec, args, texts, held_out)
            found[spec] = Subject(tuned, tokenizer, name=f"{MODEL}, {label}, {args.steps} steps", **common)
            if isinstance(parse(spec)[0], Recurrent):
                found[EMPTY] = Subject(emptied(tuned), tokenizer, name=f"{MODEL}, {label}, {EMPTY}, {args.steps} steps", **common)
            if isinstance(parse(spec)[0], AmongTexts):
                masses |= attention_masses(label, spec, tuned, passages(tokenizer, books, window))
    command = "python experiments/trained_windows.py --data FOLDER" + "".join(f" --only {method}" for method in args.only or ())
    facts = {"model": MODEL, "data": "held-out books", "command": f"{command} --steps {args.steps}"}
    by = [{**facts, "window": window, "condition": "trained", **row} for row in by_length(found, methods)]
    told = [row for method in methods for row in claims(method, found, masses, **facts)]
    for row in told:
        print(f"{row['method']}: {row['metric']}: {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        for kind, new in (("", told), ("lengths", by)):
            write(args.evidence, about, [*of_others(args.evidence / kind / f"{MODEL}.jsonl", new), *new], kind)


def emptied(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose recurrence gives nothing, as before training."""
    model = copy.deepcopy(model)
    for name, weight in own_weights(model).items():
        if ".third" in name:
            torch.nn.init.zeros_(weight)
    return model


def attention_masses(label: str, spec: str, model: PreTrainedModel, places: list[Tensor]) -> dict[str, list[float]]:
    """The share of their own keys among those of all books, by passage; prints it among two books, too."""
    for texts in (2, len(places[0])):
        shares = [share for ids in places for share in own_share(model, spec, ids, texts)]
        print(f"{label}: {fmean(shares):.3f} of the attention to memory goes to a text's own, of {texts} texts", flush=True)
    return {spec: shares}


def of_others(path: Path, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was written before of methods that were not run now."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if row["method"] not in {each["method"] for each in new}]


if __name__ == "__main__":
    main()
