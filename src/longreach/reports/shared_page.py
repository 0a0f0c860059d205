"""Draws the page docs/shared.md: whether needles of shared texts are found as often as those in prompts of their own.

`docs/evidence/shared/MODEL.json` holds the rows that benchmarks/shared.py wrote.
"""

import json
from pathlib import Path

from longreach.evaluation.intervals import share_interval

_HEAD = """# Needles of shared texts and of prompts of their own

`longreach measure` and `longreach stretch` read a text once and ask all questions of it ([how](../src/longreach/evaluation/readings.py)): a
fact is seen by its own question alone, but the text between the two has not seen it. Here is what that changes: the share of needles found
(the right number is the likeliest of ten) in shared texts, and in as many prompts of one fact each, with Wilson's 95 % intervals and
Newcombe's for the difference.

| model | method | tokens | shared | one fact a prompt | difference | |
| --- | --- | --- | --- | --- | --- | --- |
"""


def shared_page(folder: Path) -> str:
    """The page, from the rows of all models in a folder."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            shares = [share_interval(*row[kind]) for kind in ("shared", "single")]
            low, high = difference(tuple(row["shared"]), tuple(row["single"]))
            cells = [f"{share.mean:.2f} ({share.low:.2f} to {share.high:.2f})" for share in shares]
            verdict = "agree" if low <= 0 <= high else "**differ**"
            method = f"`{row['method']}`" if row["method"] else "as it is"
            lines.append(f"| {row['model']} | {method} | {row['length']} | {' | '.join(cells)} | {low:+.2f} to {high:+.2f} | {verdict} |")
    told = "Written by `make docs` from the rows in `docs/evidence/shared/`, which `python benchmarks/shared.py` writes."
    return _HEAD + "\n".join(lines) + f"\n\n{told}\n"


def difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's interval for the difference of two independent shares, each (hits, tries)."""
    one, other = share_interval(*first), share_interval(*second)
    mean = one.mean - other.mean
    low = mean - ((one.mean - one.low) ** 2 + (other.high - other.mean) ** 2) ** 0.5
    return low, mean + ((one.high - one.mean) ** 2 + (other.mean - other.low) ** 2) ** 0.5
