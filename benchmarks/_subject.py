"""What the evidence scripts share: their options, and the model that they measure."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import longreach
from longreach.checkpoints.checkpoint import find_checkpoint
from longreach.cli._progress import BarProgress
from longreach.core.errors import LongreachError
from longreach.core.lengths import parse_length
from longreach.data.stdlib import stdlib_text
from longreach.evaluation.evidence import WINDOWS, Subject, describe
from longreach.evaluation.rows import Rows
from longreach.evaluation.text import read_texts

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "evidence"
HELD_OUT = "held-out standard library"
_TIMES = 8  # windows, where the target is not given


@dataclass(frozen=True)
class Given:
    """What the options say. Args: facts: what the model is. data: the text in words. command: that repeats it, without our paths."""

    subject: Subject
    facts: dict[str, Any]
    data: str
    command: str


def parser(description: str) -> argparse.ArgumentParser:
    """The options that the scripts have in common."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="nano", help="a checkpoint's folder, a hub id, or nano (default)")
    options.add_argument("--name", help="what the docs call it [default: the last part of --model]")
    options.add_argument("--trained-on", metavar="WORDS", help="training data in words [default: the line `- Data:` of its model card]")
    options.add_argument("--to", type=_length, help=f"longest length in tokens [default: {_TIMES} times the trained window]")
    options.add_argument("--text", type=Path, action="append", help=f"real text, UTF-8; may be repeated [default: {HELD_OUT}]")
    options.add_argument("--windows", type=int, default=WINDOWS, help=f"texts of the longest length [default: {WINDOWS}]")
    options.add_argument("--rows", type=Path, help="file of what was measured already [default: longreach-results/rows/NAME.jsonl]")
    options.add_argument("--out", type=Path, default=FOLDER, help="folder for the rows of the docs [default: docs/evidence]")
    return options


def _length(text: str) -> int:
    try:
        return parse_length(text)
    except LongreachError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def given(args: argparse.Namespace, script: str, extra: str, progress: BarProgress) -> Given:
    """Load what the options name. Args: extra: the script's own options, for the command."""
    name = args.name or Path(args.model).name
    model, tokenizer = longreach.load(args.model)
    facts = describe(model, name=name, card=find_checkpoint(args.model) / "README.md", trained_on=args.trained_on)
    to = args.to or _TIMES * facts["window"]
    rows = Rows(args.rows or Path("longreach-results/rows") / f"{name}.jsonl")
    subject = Subject(model, tokenizer, name=name, to=to, text=texts_of(args), windows=args.windows, rows=rows, progress=progress)
    of = f"--model FOLDER --name {name}" if Path(args.model).is_dir() else f"--model {args.model}{f' --name {name}' if args.name else ''}"
    texts = "".join(f" --text {path.name}" for path in args.text or ())
    few = "" if args.windows == WINDOWS else f" --windows {args.windows}"
    command = f"python benchmarks/{script} {of} --to {to}{texts}{few}{extra}"
    return Given(subject, facts, ", ".join(path.name for path in args.text) if args.text else HELD_OUT, command)


def texts_of(args: argparse.Namespace) -> str:
    """The real text."""
    return read_texts(args.text) if args.text else stdlib_text("held-out")
