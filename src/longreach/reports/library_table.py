"""Draws the tables of docs/guide-memory.md: what documents from the library lose in one prompt, and what they save.

`docs/evidence/library/MODEL.json` holds the row that benchmarks/library.py wrote.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JOINT = "both, read as one"
PASSAGES = ("what comes next", "a passage of the first", "a passage of the second")


def library_tables(folder: Path) -> str:
    """Those of all models in a folder."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return "\n\n".join(
        ["", *map(library_table, rows), "Written by `make docs` from what `python benchmarks/library.py --keep` measures.", ""]
    )


def library_table(row: Mapping[str, Any]) -> str:
    """A table of losses, and the costs, for people."""
    table: dict[str, list[str]] = defaultdict(list)
    for way, _, loss, *gap in row["losses"]:
        table[way].append(f"{loss:.3f}" + ("" if way == JOINT else " ({:+.3f}, {:+.3f} to {:+.3f})".format(*gap)))
    each = row["costs"]
    saved = each["reading"] - each["loading"]
    pays = f"pays from question {int((each['reading'] + each['writing']) / saved) + 1} on" if saved > 0 else "does not pay"
    steps = ", ".join(f"{step} {each[step]:.2f} s" for step in ("reading", "writing", "loading"))
    size = f"{each['bytes'] / 1e6:.1f} MB on disk, {each['bytes'] / each['tokens']:,.0f} bytes a token"
    return "\n".join(
        [
            f"| {row['model']}, {row['texts']} texts | {' | '.join(PASSAGES)} |",
            f"| --- {'| --- ' * len(PASSAGES)}|",
            *(f"| {way} | {' | '.join(cells)} |" for way, cells in table.items()),
            "",
            f"A document of {each['tokens']:.0f} tokens (CPU, threads: {row['threads']}): {steps}; {size}; {pays}. "
            f"Both in one prompt: {each['both from the library']:.2f} s from the library, {each['both read as one']:.2f} s read as one.",
        ]
    )
