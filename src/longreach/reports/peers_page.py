"""Draws the page docs/peers.md: caches that kvpress cuts, beside ours.

`docs/evidence/peers/MODEL-LENGTH.json` holds the rows that benchmarks/peers/kvpress_caches.py wrote.
"""

import json
from pathlib import Path

_HEAD = """# Beside kvpress

[kvpress](https://github.com/NVIDIA/kvpress) cuts the caches of prompts, too. Here both read the same prompt with the same model under the
same budget; it runs in an environment of its own, for it needs an older transformers.

- *Same tokens*: of the tokens that a key-value head keeps there, the share that it keeps here: the mean of all heads, and the least.
- *Prefill*, *decode*: processor time here, of what it takes there, for the prompt with its cut and for 32 tokens after it, by one
  thread.

`tova` reads a prompt under its budget, as its paper does; kvpress cuts it once, where it ends. Where tokens have equal scores (`knorm`: one
token id in the first layer has keys of one norm), the later ones stay here, and any of them there.
"""
_TABLE = """
| method | budget | same tokens | least | prefill | decode |
| --- | --- | --- | --- | --- | --- |
"""


def peers_page(folder: Path) -> str:
    """The page, from the rows of all models in a folder."""
    parts = [_HEAD]
    for path in sorted(folder.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"\n## {rows[0]['model']}, a prompt of {rows[0]['length']:,} tokens\n{_TABLE}")
        for row in rows:
            same = "all" if row["same"] == 1 else f"{row['same']:.3f}"
            budget, spec = ("all", "no method") if not row["spec"] else (str(row["budget"]), f"`{row['spec']}`")
            parts.append(f"| {spec} | {budget} | {same} | {row['least']:.3f} | {row['prefill']:.2f} | {row['decode']:.2f} |\n")
    parts.append("\nWritten by `make docs` from the rows in `docs/evidence/peers/`, which `benchmarks/peers/kvpress_caches.py` writes.\n")
    return "".join(parts)
