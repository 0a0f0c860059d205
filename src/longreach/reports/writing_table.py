"""Draws the table of docs/guide-write.md: how long texts get.

`docs/evidence/writing/MODEL.jsonl` holds the rows that benchmarks/writing.py wrote.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

ONE_CALL = "one call"


def writing_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each model and way: words reached and S_l at each length, means over topics."""
    lengths = sorted({row["asked"] for row in rows})
    lines = [f"| model | | {' | '.join(f'{length:,} words' for length in lengths)} | texts | calls a text |"]
    lines.append("| --- " * (len(lengths) + 4) + "|")
    for model, way in dict.fromkeys((row["model"], row["way"]) for row in rows):
        of = [row for row in rows if (row["model"], row["way"]) == (model, way)]
        cells = []
        for length in lengths:
            at = [row for row in of if row["asked"] == length]
            cells.append(f"{fmean(row['found'] for row in at):,.0f} (S_l {fmean(row['score'] for row in at):.0f})" if at else "-")
        calls = fmean(row["calls"] for row in of)
        way = way if way == ONE_CALL else f"`{way}`"
        lines.append(f"| {model} | {way} | {' | '.join(cells)} | {len(of)} | {calls:.1f} |")
    return "\n".join(lines) + "\n"


def writing_rows(folder: Path) -> list[dict[str, Any]]:
    """All that was measured."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
