"""Tunes one model under each positions method, at full length and on as many tokens each, and holds the methods to what papers claim of
tuned models.

    python experiments/tuned.py --data FOLDER [--model nano] [--only METHOD]... [--steps 100] [--work DIR] [--evidence FOLDER]

--data holds `train/*.txt` (books); the training split of the standard library's source is added. Beside the methods the model is tuned
without any, which shows what training alone does. A run that was stopped goes on when the same command is given again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nano import read_books
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.checkpoints.places import MARKER
from longreach.cli._progress import BarProgress
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import Progress
from longreach.data.sources import Texts
from longreach.data.stdlib import stdlib_text
from longreach.engine.window import window_of
from longreach.evaluation.by_length import entries
from longreach.evaluation.claims.base import ClaimBench, LeftOut
from longreach.evaluation.evidence import WINDOWS, Subject, describe, write
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.verdicts import claim_rows
from longreach.positions.base import PositionsMethod
from longreach.training.plan import TuneConfig
from longreach.training.tune import Tuned, tune

TIMES = 8  # windows to reach
RATE = 3e-4
SAMPLES = 20  # questions of each depth and length
NOTHING = "linear:factor=1"  # tuned without a method
NOTHING_NAMED = "tuned without a method"
STACKS = (f"yarn:factor={TIMES}+resonance", f"yarn:factor={TIMES}+longgen:window_size=128")
BOOKS, SOURCE = 4_000_000, 8_000_000  # characters


def specs(window: int) -> dict[str, str]:
    """Name -> what the model is tuned under: every positions method that scales frequencies, and stacks.

    Those are left out that change with the tokens seen: a model is tuned at one setting.
    """
    methods = [method for method in registry.methods() if issubclass(method, PositionsMethod) and not method.info.length_dependent]
    suggested = {method.name(): method.suggest(window, TIMES * window) for method in methods}
    alone = {name: found[0].spec for name, found in suggested.items() if found}
    stacks = {"+".join(part.partition(":")[0] for part in stack.split("+")): stack for stack in STACKS}
    return {NOTHING_NAMED: NOTHING} | alone | stacks


def config(spec: str, window: int, steps: int) -> TuneConfig:
    """A run of as many tokens as every other: a sequence of the full length each step."""
    return TuneConfig(
        target=TIMES * window, method=spec, sampler="full_length", steps=steps, batch_size=1, lr=RATE, full=True,
        mixture={"long": 0.7, "recall": 0.3}, warmup=0.05,
    )  # fmt: skip


class TunedSubject(Subject):
    """One model, and what became of it under each spec. Under a spec that it was tuned with, the model tuned with that is measured."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tuned: dict[str, Subject] = {}

    def _measured(self, task: str, **plan: Any) -> list[Row]:
        subject = self.tuned.get(plan.get("method", ""))
        return super()._measured(task, **plan) if subject is None else subject._measured(task, **plan)


class TunedBench(ClaimBench):
    """Of tuned models: a method has the one setting that it was tuned with. Args: specs: by method or stack."""

    def __init__(self, subject: TunedSubject, text: str, specs: Mapping[str, str]) -> None:
        super().__init__(subject, text, {})
        self.specs = specs

    def settings(self, name: str) -> list[str]:
        """The one."""
        if name not in self.specs:
            raise LeftOut("the model was not tuned under it")
        return [self.specs[name]]

    def stacked(self, name: str) -> tuple[str, str]:
        """The stack that was tuned, and what was tuned without the method."""
        for stack in self.specs:
            under, plus, last = stack.rpartition("+")
            if plus and last == name:
                return self.specs[stack], self.specs[under]
        raise LeftOut("the model was not tuned under a stack with it")


def tuned_under(spec: str, name: str, args: argparse.Namespace, texts: Texts, window: int, progress: Progress) -> Tuned:
    """The model, tuned now or before."""
    model, tokenizer = longreach.load(args.model, dtype="float32")
    run = args.work / name.replace(" ", "-")
    tuned = tune(
        model, tokenizer, texts, config(spec, window, args.steps), run, held_out=stdlib_text("held-out"), tokens=args.work / "tokens.npz",
        progress=progress,
    )  # fmt: skip
    print(f"{name}: loss inside the window {tuned.gate.rise:+.2%}", flush=True)
    return tuned


def save_scaled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, spec: str, target: int) -> None:
    """Save a model with its scaling in its config, as published checkpoints have it: without longreach's record of what it was before."""
    longreach.save(model, tokenizer, folder, method=spec, target=target)
    (folder / MARKER).unlink()


def by_length(subject: TunedSubject, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Entries of the table by length: the model as it is, and what was tuned. Args: names: name -> spec."""
    lengths = [length for length in subject.edges if length >= subject.window]
    found = entries("stock model", dict.fromkeys(lengths, ""), subject, SAMPLES)
    for name, spec in names.items():
        of_method = entries(name, dict.fromkeys(lengths, spec), subject, SAMPLES)
        found += [entry | {"setting": "" if name == NOTHING_NAMED else spec} for entry in of_method]
    return found


def main() -> None:
    """Tune under each, measure each, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt")
    parser.add_argument("--model", default="nano", help="a checkpoint's folder, a hub id, or nano (default)")
    parser.add_argument("--name", help="what the docs call the tuned models [default: the last part of --model, and -tuned]")
    parser.add_argument("--steps", type=int, default=100, help="of each run [default: 100]")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="only this method or stack; may be repeated")
    parser.add_argument("--windows", type=int, default=WINDOWS, help=f"held-out texts of the longest length [default: {WINDOWS}]")
    parser.add_argument("--work", type=Path, default=Path("tuned-run"), help="folder for the runs and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the docs (docs/evidence)")
    parser.add_argument("--checkpoints", type=Path, help="save what was tuned in this folder, as checkpoints that are scaled already")
    args = parser.parse_args()
    try:
        with BarProgress() as progress:
            _compare(args, progress)
    except LongreachError as error:
        print(f"tuned: {error}", file=sys.stderr)
        sys.exit(2)


def _compare(args: argparse.Namespace, progress: Progress) -> None:
    if args.windows < 2:
        raise InputError(f"--windows {args.windows}: give at least 2, for an interval is made of several texts")
    books, held_out = "\n\n".join(read_books(args.data / "train")), stdlib_text("held-out")
    texts = Texts(names=("books", "source"), contents=(books[:BOOKS], stdlib_text("train")[:SOURCE]), skipped=())
    rows = Rows(args.work / "rows.jsonl")
    model, tokenizer = longreach.load(args.model)
    window, name = window_of(model), args.name or f"{Path(args.model).name}-tuned"
    common: dict[str, Any] = {"to": TIMES * window, "text": held_out, "windows": args.windows, "rows": rows, "progress": progress}
    subject = TunedSubject(model, tokenizer, name=name, **common)
    names = specs(window)
    if unknown := [only for only in args.only if only not in names]:
        raise InputError(f"--only {unknown[0]}: choose among {', '.join(names)}")
    names = {method: spec for method, spec in names.items() if not args.only or method in (NOTHING_NAMED, *args.only)}
    for method, spec in names.items():
        tuned = tuned_under(spec, method, args, texts, window, progress)
        if args.checkpoints:
            save_scaled(tuned.model, tokenizer, args.checkpoints / method.replace(" ", "-"), spec, TIMES * window)
        subject.tuned[spec] = Subject(tuned.model, tokenizer, name=f"{name}, {method}", **common)
    tokens = args.steps * TIMES * window
    of = f"--model {args.model}" if not Path(args.model).is_dir() else "--model FOLDER"
    chosen = "".join(f" --only {method}" for method in args.only)
    command = f"python experiments/tuned.py --data FOLDER {of} --steps {args.steps}{chosen}"
    facts = {"model": name, "data": "held-out standard library", "command": command}
    told = claim_rows(TunedBench(subject, held_out, names), ("tuned",), say=partial(print, flush=True), **facts)
    by = [{**facts, "window": window, "condition": "tuned", **entry} for entry in by_length(subject, names)]
    for entry in by:
        print(f"{entry['method']} at {entry['length']}: loss increase {entry['rise']:.3f}, found {entry['found']:.2f}", flush=True)
    if args.evidence:
        words = f"{Path(args.model).name}, then {tokens / 1e6:.1f}M tokens of books, Python source and recall under each method"
        about = describe(model, name=name, trained_on=f"{words}, in sequences of {TIMES * window} tokens")
        for kind, found in (("", told), ("lengths", by)):
            write(args.evidence, about, [*_of_others(args.evidence / kind / f"{name}.jsonl", names), *found], kind)


def _of_others(path: Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """What was written before of methods that were not run now."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    measured = {part for name in names for part in (name, name.rpartition("+")[2])}
    return [row for row in rows if row["method"] not in {*measured, "stock model"}]


if __name__ == "__main__":
    main()
