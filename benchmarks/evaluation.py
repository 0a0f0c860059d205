"""What evaluating costs beside the model: making a passage of a million tokens, for each task, and scoring ten thousand answers.

    python benchmarks/evaluation.py [--tokens 1M] [--only TASK]... [--model FOLDER]

Passages are made with the tokenizer of --model (nano's), from the standard library's text repeated, and each in a process of its own, for
its memory. Seconds are of a busy or idle machine: `count` is what counting the passage once takes, which bounds them from below.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace

from longreach.core import registry
from longreach.core.lengths import parse_length

_ROWS = 10_000


def made(spec: str, model: str, tokens: int) -> str:
    """A line on one task, in this process."""
    import torch

    from longreach.checkpoints.checkpoint import load_tokenizer
    from longreach.core.spec import parse
    from longreach.data.stdlib import stdlib_text
    from longreach.evaluation.asking.filler import Filler
    from longreach.evaluation.asking.form import Form
    from longreach.evaluation.asking.space import Space
    from longreach.evaluation.asking.units import Tokens
    from longreach.evaluation.memory import PeakMemory
    from longreach.evaluation.text_task import TextTask

    (task,) = parse(spec, acts_on="measurement")
    assert isinstance(task, TextTask)  # noqa: S101 - chosen by `tasks`
    units = Tokens(Form(load_tokenizer(model), chat=False))
    text = stdlib_text("held-out")
    text *= 1 + 6 * tokens // len(text)  # far more than any tokenizer needs
    filler = Filler(text, units) if task.needs_text else None
    units.count("warm up")
    with PeakMemory(torch.device("cpu")) as peak:
        began = time.perf_counter()
        passage = task.passage(Space(task=task.spec, length=tokens, units=units, text=filler))
        seconds = time.perf_counter() - began
    began = time.perf_counter()
    used = units.count(passage.text) + max(units.around(ask, passage.turns) for ask in passage.asks)
    return f"| {spec} | {seconds:.1f} | {time.perf_counter() - began:.1f} | {peak.bytes / 2**20:.0f} | {used / tokens:.4f} |"


def scored() -> str:
    """How long ten thousand rows take to be read, summed up and made a card."""
    from longreach.evaluation.abilities import cards
    from longreach.evaluation.marks import marks
    from longreach.evaluation.rows import Row

    settings = {"metric": "accuracy", "chance": 0.1, "units": "tokens", "question": 0}
    row = Row(task="needle", model="m", method="", length=0, version="1", settings=settings, depth=0.5)
    rows = [replace(row, length=1024 << at % 5, score=float(at % 3 > 0), settings={**settings, "passage": at // 25}) for at in range(_ROWS)]
    began = time.perf_counter()
    found = len(marks(rows)), len(cards(rows))
    return f"{_ROWS} rows: {found[0]} marks and {found[1]} card in {time.perf_counter() - began:.2f} s"


def tasks() -> list[str]:
    """Every text task at its defaults."""
    from longreach.evaluation.text_task import TextTask

    return [method.name() for method in registry.methods("task") if issubclass(method, TextTask)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="1M", help="of a passage and its question [default: 1M]")
    parser.add_argument("--model", default="nano", help="whose tokenizer counts [default: nano]")
    parser.add_argument("--only", metavar="TASK", action="append", default=[], help="only this task; may be repeated")
    parser.add_argument("--here", metavar="TASK", help=argparse.SUPPRESS)
    args = parser.parse_args()
    tokens = parse_length(args.tokens)
    if args.here:
        print(made(args.here, args.model, tokens))
        return
    print("| task | seconds | count | MiB | filled |\n| --- | --- | --- | --- | --- |", flush=True)
    for spec in args.only or tasks():
        command = [sys.executable, __file__, "--tokens", args.tokens, "--model", args.model, "--here", spec]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - this very script
        print(
            done.stdout.strip().splitlines()[-1] if done.returncode == 0 else f"| {spec} | {done.stderr.strip().splitlines()[-1]} |",
            flush=True,
        )
    print(scored())


if __name__ == "__main__":
    main()
