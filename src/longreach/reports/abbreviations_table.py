"""Draws the table of docs/guide-write.md on abbreviations.

`docs/evidence/abbreviations/MODEL.jsonl` holds the rows that benchmarks/abbreviations.py wrote.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

RETRIEVED, RANDOM, WITHOUT = "the 8 most similar", "8 at random", "none"


def abbreviations_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each model and way: how many sentences come out right, and how many have the letters at all."""
    lines = [
        "| model | sentences shown | right | of those never said before | have the letters | sentences | calls a sentence |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, way in dict.fromkeys((row["model"], row["way"]) for row in rows):
        of = [row for row in rows if (row["model"], row["way"]) == (model, way)]
        new = [row for row in of if not row["known"]]
        unseen = f"{fmean(row['right'] for row in new):.0%} of {len(new)}" if new else "-"
        share = [f"{fmean(row[key] for row in of):.0%}" for key in ("right", "fits")]
        calls = fmean(row["calls"] for row in of)
        lines.append(f"| {model} | {way} | {share[0]} | {unseen} | {share[1]} | {len(of)} | {calls:.1f} |")
    return "\n".join(lines) + "\n"


def abbreviation_rows(folder: Path) -> list[dict[str, Any]]:
    """All that was measured."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
