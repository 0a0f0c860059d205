"""A comparison of methods in lines for people: in a terminal, and in docs/guide-evaluate.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreach.core.lengths import format_length
from longreach.core.spec import STOCK


def comparison_cells(told: Mapping[str, Any]) -> list[dict[str, str]]:
    """Cells by column for each method, from the best to the worst. Args: told: what `longreach compare --json` prints."""
    return [
        {
            "method": f"{one['method'] or STOCK}{' (not tuned)' if one['method'] in told['frozen'] else ''}",
            "score": f"{_two(one['score']['mean'])} ({_two(one['score']['low'])}-{_two(one['score']['high'])})",
            "behind": "first" if one["behind"] is None else f"{'~' if one['noise'] else ''}{_two(one['behind']['mean'])}",
            **{format_length(int(length)): _two(score) for length, score in sorted(one["by_length"].items(), key=_length)},
            "loss": f"{told['losses'][one['method']]['mean']:.3f}",
        }
        for one in told["ranks"]
    ]


def comparison_notes(told: Mapping[str, Any]) -> list[str]:
    """What there is to say below the lines; where no method is above chance, the methods by their loss instead of lines."""
    notes = []
    if told["ranks"]:
        asked = ", ".join(f"{task} by {metric}" for task, metric in told["tasks"].items())
        notes.append(f"Scores above chance (1: everything right) of {asked}; {told['passages']} passages.")
        notes.append("~ cannot be told from the first (paired bootstrap, 95 %). Loss: nats a token of the last octave.")
    else:
        notes.append("No method is above chance on the shortest texts, so that the tasks tell nothing. By loss:")
        by_loss = sorted(told["losses"].items(), key=lambda pair: float(pair[1]["mean"]))
        notes += [f"  {loss['mean']:.3f}  {spec or STOCK}" for spec, loss in by_loss]
    if told["frozen"]:
        notes.append(f"Nothing can be tuned under {', '.join(told['frozen'])}: compared on the base model.")
    if told["at_chance"]:
        notes.append(f"At chance under every method: {', '.join(told['at_chance'])}.")
    if told["agreement"] is not None:
        notes.append(f"Rank by loss and rank by tasks agree by {told['agreement']:+.2f} (Spearman).")
    return [*notes, *(f"{spec or STOCK} is left out: {why}." for spec, why in told["left_out"].items())]


def comparison_tables(files: Sequence[Path]) -> str:
    """A page's tables of comparisons, each with its command and what there is to say of it."""
    parts = []
    for told in (json.loads(file.read_text(encoding="utf-8")) for file in files):
        methods = " ".join(spec for spec in told["losses"] if spec)
        tuned = told["tuned"]
        command = f'longreach compare {told["model"]} --to {format_length(told["target"])} --method "{methods}"'
        if tuned is not None:
            rate = "" if tuned["lr"] is None else f" --lr {tuned['lr']}"
            command += f" --data FOLDER --steps {tuned['steps']}{rate}{' --full' if tuned['full'] else ''}"
        rows = []
        if lines := comparison_cells(told):
            rows = [list(lines[0]), ["---"] * len(lines[0]), *([_code(line.pop("method")), *line.values()] for line in lines)]
        said = " ".join(comparison_notes(told)).replace("~ cannot", "`~` cannot")
        parts.append("\n".join([f"`{command}`:", "", *(f"| {' | '.join(row)} |" for row in rows), "", said, ""]))
    return "\n".join(parts)


def _two(number: float) -> str:
    """To two digits, and no minus before 0.00."""
    return f"{round(number, 2) + 0.0:.2f}"


def _length(pair: tuple[str, float]) -> int:
    return int(pair[0])


def _code(name: str) -> str:
    spec, bracket, more = name.partition(" (")
    return name if name == STOCK else f"`{spec}`{bracket}{more}"
