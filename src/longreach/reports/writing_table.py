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
    """A line for each model and way: words reached and S_l at each length, means over topics, and what the longest took."""
    lengths = sorted({row["asked"] for row in rows})
    lines = [f"| model | | {' | '.join(f'{length:,} words' for length in lengths)} | calls, at most words | tokens |"]
    lines.append("| --- " * (len(lengths) + 4) + "|")
    models = list(dict.fromkeys(row["model"] for row in rows))
    for model, way in sorted(dict.fromkeys((row["model"], row["way"]) for row in rows), key=lambda pair: models.index(pair[0])):
        of = [row for row in rows if (row["model"], row["way"]) == (model, way)]
        cells = []
        for length in lengths:
            at = [row for row in of if row["asked"] == length]
            cells.append(f"{fmean(row['found'] for row in at):,.0f} (S_l {fmean(row['score'] for row in at):.0f})" if at else "-")
        longest = [row for row in of if row["asked"] == max(row["asked"] for row in of)]
        calls = fmean(row["calls"] for row in longest)
        tokens = fmean(row["read"] + row["written"] for row in longest)
        way = way if way == ONE_CALL else f"`{way}`"
        lines.append(f"| {model} | {way} | {' | '.join(cells)} | {calls:,.0f} | {tokens:,.0f} |")
    return "\n".join(lines) + "\n"


def writing_rows(folder: Path) -> list[dict[str, Any]]:
    """All that was measured."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
