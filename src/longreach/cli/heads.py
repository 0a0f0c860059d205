"""Positional heads: the heads that look into the distance, and what a model loses without them.

Paper: On the token distance modeling ability of higher RoPE attention dimension, 2024, arXiv:2410.08703
Cost: one forward pass a text, and one measurement for each set of heads left out.   Limits: for rotary models.
Differs from the paper: its idea, not its formula to the letter (analysis/heads.py).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import longreach
from longreach.cli._options import (
    AS_IT_IS,
    BatchSize,
    ChunkSize,
    Depths,
    Loading,
    TrainedWindow,
    loads_model,
    open_rows,
    parse_depths,
)
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.fitting import FORMAT, check_place, write_fitted
from longreach.core.lengths import parse_length
from longreach.core.method import MethodInfo
from longreach.core.spec import check_names, check_spec

if TYPE_CHECKING:
    from longreach.analysis.ablation import Ablation, Cell
    from longreach.analysis.heads import HeadScore
    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.core.progress import Progress
    from longreach.evaluation.intervals import Interval

INFO = MethodInfo(title="On the token distance modeling ability of higher RoPE attention dimension", paper="arXiv:2410.08703")

_SHARE = 10  # one head in so many is ablated
_LISTED = 10
_LONGEST = 2048  # tokens that heads are found on, read at once
_SAMPLES = 10  # facts
_DRAWS, _WINDOWS, _TASKS = 5, 8, "loss+needle"


@loads_model
def heads(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    top: Annotated[int | None, typer.Option(min=1, help="Positional heads to ablate. [default: a tenth of all]")] = None,
    draws: Annotated[int, typer.Option(min=2, help="Draws of as many random heads.")] = _DRAWS,
    same_layers: Annotated[bool, typer.Option("--same-layers", help="Draw random heads from the positional heads' layers only.")] = False,
    to: Annotated[str | None, typer.Option(metavar="LENGTH", help="Length to measure at: 4096, 32k. [default: the trained window]")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    method: Annotated[str, typer.Option(metavar="SPEC", help="Under a positions method, as yarn:factor=8; factor=auto reaches --to.")] = "",
    tasks: Annotated[str, typer.Option(metavar="SPEC", help="What the ablated model is measured by, joined by +.")] = _TASKS,
    windows: Annotated[int, typer.Option(min=1, help="Windows of text.")] = _WINDOWS,
    samples: Annotated[int | None, typer.Option(min=1, help="Prompts of each depth. [default: 10]")] = None,
    depths: Depths = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw, and of the prompts.")] = 0,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL-heads.jsonl]"),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Find the heads that retrieve instead, and write what they score: duo:file=FILE."),
    ] = None,
    trained_window: TrainedWindow = None,
    chunk_size: ChunkSize = None,
    batch_size: BatchSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Find the positional heads, whose slow rotary dimensions look into the distance, and measure what the model loses without them
    against as many random heads. A stopped run goes on when run again. With --save, find the heads that retrieve: those that look at a
    fact while it is written down.
    """
    length, trained = (None if given is None else parse_length(given) for given in (to, trained_window))
    if method:
        check_spec(method)
    check_names([tasks], acts_on="measurement")
    check_texts(text)
    given = parse_depths(depths)
    if save is not None:
        of_ablation = {
            "--top": top is not None, "--draws": draws != _DRAWS, "--same-layers": same_layers, "--tasks": tasks != _TASKS,
            "--windows": windows != _WINDOWS, "--depths": depths is not None, "--rows": rows is not None,
            "--chunk-size": chunk_size is not None, "--batch-size": batch_size is not None, "--json": as_json,
        }  # fmt: skip
        if useless := [option for option, given in of_ablation.items() if given]:
            raise InputError(f"{useless[0]} has no effect with --save, which only finds the heads that retrieve; leave it out")
        check_place(save)

    from longreach.analysis.ablation import ablate
    from longreach.cli._progress import BarProgress
    from longreach.data.stdlib import stdlib_text
    from longreach.engine.window import window_of
    from longreach.evaluation.measure import check, parse_tasks
    from longreach.evaluation.text import read_texts

    chosen_tasks, words = parse_tasks(tasks), read_texts(text) if text else stdlib_text("held-out")
    measuring: dict[str, Any] = {"windows": windows, "samples": samples, "depths": given, "batch_size": batch_size}
    measuring |= {} if chunk_size is None else {"chunk_size": chunk_size}
    check(chosen_tasks, text=words if any(task.fewest_windows for task in chosen_tasks) else None, **measuring)
    name = loading.name(model)
    store = open_rows(rows, f"{name}-heads")
    loaded = loading.load(model)
    trained = trained or window_of(loaded.model)
    length = length or trained
    if length < trained:
        raise InputError(f"--to {length} is below the trained window of {trained} tokens; heads are compared there and beyond")
    if save is not None:
        _save_retrieving(loaded, name, words, trained, min((to and length) or trained, _LONGEST), method, samples or _SAMPLES, seed, save)
        return
    with BarProgress() as progress:
        scores = _scores(loaded, words, windows, trained, length, method, progress)
        best, others = _divided(scores, top, same_layers)
        found = ablate(
            *loaded, best, others, name=name, to=length, text=words, method=method, tasks=chosen_tasks, trained_window=trained,
            draws=draws, seed=seed, rows=store, progress=progress, **measuring,
        )  # fmt: skip
    if as_json:
        print(json.dumps({"model": name, "method": method, "rows_file": str(store.path), **_as_json(scores, found)}, allow_nan=False))
    else:
        _show(name, scores, found, same_layers)
        print(f"Rows: {store.path}")


def _scores(loaded: "Checkpoint", text: str, windows: int, trained: int, to: int, method: str, progress: "Progress") -> "list[HeadScore]":
    """The scores on texts as long as the trained window or, under a method, the length that it is to reach; 2048 tokens at most."""
    import numpy as np

    from longreach.analysis.heads import head_scores
    from longreach.decoding.encoder import Encoder
    from longreach.evaluation.text import cut_windows

    encoder, length = Encoder(loaded.tokenizer), min(to if method else trained, _LONGEST)
    prefix = np.array(encoder.prefix, dtype=np.int32)
    texts = [np.concatenate([prefix, window]) for window in cut_windows(encoder, text, length - len(prefix), windows)]
    with longreach.apply(loaded.model, method, target=to):
        progress.start("finding heads", length * len(texts))
        return head_scores(loaded.model, texts, trained, progress=progress)


def _save_retrieving(
    loaded: "Checkpoint", name: str, text: str, trained: int, length: int, method: str, samples: int, seed: int, path: Path
) -> None:
    """Find the heads that retrieve, write their scores, and say which are the first."""
    from rich.console import Console

    from longreach.analysis.retrieval_heads import retrieval_scores
    from longreach.cli._progress import BarProgress

    with BarProgress() as progress, longreach.apply(loaded.model, method, target=length):
        progress.start("finding heads that retrieve", length * samples)
        found = retrieval_scores(*loaded, text, trained, length=length, samples=samples, seed=seed, progress=progress)
    told = {"longreach": longreach.__version__, "model": name, "length": length, "samples": samples, "seed": seed, "under": method}
    write_fitted(path, {"format": FORMAT, "method": "duo", "fitted": {"scores": found}, **told})
    ranked = sorted(((score, layer, head) for layer, row in enumerate(found) for head, score in enumerate(row)), reverse=True)
    console, table = Console(highlight=False), new_table("layer", "kv head", "attention to the fact", title=f"{name}: heads that retrieve")
    for score, layer, head in ranked[:_LISTED]:
        table.add_row(str(layer), str(head), f"{score:.3f}")
    show(console, table)
    console.print(
        f"The first {min(_LISTED, len(ranked))} of {len(ranked)} key-value heads, by {samples} facts in texts of {length} tokens."
    )
    console.print(f"Written: {path}\nUse it: --method duo:file={path}", soft_wrap=True)


def _divided(scores: "Sequence[HeadScore]", top: int | None, same_layers: bool) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The positional heads to ablate, and those to draw random ones from."""
    names = [(each.layer, each.head) for each in scores]
    count = max(1, len(names) // _SHARE) if top is None else top
    best, layers = names[:count], {layer for layer, _ in names[:count]}
    others = [name for name in names[count:] if not same_layers or name[0] in layers]
    if len(others) < len(best):
        where = " in their layers" if same_layers else ""
        raise InputError(f"--top {count}: no {count} other heads are left{where} to compare with; ablate fewer")
    return best, others


def _as_json(scores: "Sequence[HeadScore]", found: "Ablation") -> dict[str, Any]:
    cells = [{**asdict(cell), "chosen": cell.chosen._asdict(), "drawn": cell.drawn._asdict()} for cell in found.cells]
    for cell in cells:  # one value has no interval
        for interval in (cell["chosen"], cell["drawn"]):
            interval |= {end: None for end in ("low", "high") if not math.isfinite(interval[end])}
    draws = [{"seed": seed, "heads": drawn} for seed, drawn in found.draws.items()]
    return {"heads": [asdict(each) for each in scores], "ablation": {"chosen": found.chosen, "draws": draws, "cells": cells}}


def _show(name: str, scores: "Sequence[HeadScore]", found: "Ablation", same_layers: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    listed = scores[: max(_LISTED, len(found.chosen))]
    heads = new_table("layer", "head", "score", "far", title=f"{name}: positional heads")
    for each in listed:
        heads.add_row(str(each.layer), str(each.head), f"{each.score:+.2f}", f"{each.far:.2f}")
    show(console, heads)
    console.print(
        f"The first {len(listed)} of {len(scores)} heads. score: how steadily slower dimensions do more of the looking into the distance "
        f"(-1 to 1). far: share of attention a fourth of the text away or more.\n",
        soft_wrap=True,
    )
    count, own = len(found.chosen), " of the same layers" if same_layers else ""
    costs = new_table("", "all heads", "without positional", "without random", title=f"{name} without {count} heads")
    for cell in found.cells:
        costs.add_row(_what(cell), f"{cell.plain:.3f}", _change(cell.chosen), _change(cell.drawn))
    show(console, costs)
    gone = " ".join(f"{layer}.{head}" for layer, head in found.chosen)
    console.print(
        f"Without {gone} (layer.head), against {len(found.draws)} draws of {count} other heads{own}. Changes with 95 % intervals: over "
        f"blocks of text and prompts, and over draws. Loss in nats a token; retrieval as the share of right answers.",
        soft_wrap=True,
    )


def _what(cell: "Cell") -> str:
    return f"{cell.task} {(cell.start or 0) + 1}-{cell.length}" if cell.metric == "loss" else f"{cell.task} at {cell.length}, {cell.metric}"


def _change(change: "Interval") -> str:
    half = change.high - change.mean
    return f"{change.mean:+.3f}" + (f" ± {half:.3f}" if math.isfinite(half) else "")
