"""Draws the table of docs/guide-memory.md about a million tokens through one cache.

`docs/evidence/soak/MODEL-METHOD.json` holds what benchmarks/soak.py wrote: one run, with a step at every doubling.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIRST = 65_536  # tokens of the first step that is shown; each one shown is four times the one before


def soak_table(folder: Path) -> str:
    """A line for each run in a folder: memory of the process, processor time a token, and facts found."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    shown = sorted({step["tokens"] for run in runs for step in run["steps"] if _shown(step["tokens"])})
    lines = [
        f"| method | text | {' | '.join(f'{tokens:,} tokens' for tokens in shown)} |",
        f"| --- | --- {'| --- ' * len(shown)}|",
    ]
    for run in runs:
        steps = {step["tokens"]: step for step in run["steps"]}
        cells = [_cell(steps[tokens]) if tokens in steps else "" for tokens in shown]
        lines.append(f"| `{run['spec']}` | {run['text']} | {' | '.join(cells)} |")
    return "\n".join(["", *lines, "", "Written by `make docs` from what `python benchmarks/soak.py --keep` measures.", ""])


def _shown(tokens: int) -> bool:
    return tokens >= FIRST and tokens % FIRST == 0 and (tokens // FIRST).bit_length() % 2 == 1 and (tokens // FIRST).bit_count() == 1


def _cell(step: Mapping[str, Any]) -> str:
    return f"{step['mib']:,.0f} MiB, {step['ms']:.2f} ms, {step['found']} of {step['facts']}"
