"""Draws the page docs/eviction.md: what is lost when a prompt's cache is made smaller, or less of it is read.

`docs/evidence/eviction/MODEL-LENGTH.json` holds the rows that benchmarks/eviction.py wrote: one for each method and budget.
"""

import json
from pathlib import Path
from statistics import fmean

from longreach.evaluation.intervals import share_interval

AFTER = 256  # tokens of the text whose loss is taken after the cut

_HEAD = """# What smaller caches cost

A text with five facts is read as a prompt, and its cache is cut to a share of its tokens (*budget*). `ada` and `pyramid` divide the budget
of `snapkv` among heads and among layers. `quest` and `squeezed` keep all of it, and read that share. So do `infllm`, `hip`, `hyper`,
`probabilistic_blocks` and `longgen` (untuned here; it is for models tuned under it), which read the prompt that way, too; `hip` and `hyper`
read a window besides. `think`, `quantised` and `staircase` keep every token, in fewer bytes. Under `duo` that share of the heads keeps all
of it; which, questions of the same kind have told.

- *First question*: the prompt ends with the question, so that a method may see it before it cuts. *Second question*: of another fact, after
  the cut and the first answer; it shows whether a cache serves more than the question that it was cut for. An answer counts where greedy
  decoding writes all five digits; shares have Wilson's 95 % intervals. The tokenizers of these models make a token of each digit. The first
  digit follows from the whole prompt, the others from what was kept: a method that goes by the end of the prompt keeps the place where the
  number begins, and its neighbours.
- *Loss*: nats a token of the next {after} tokens of the text, above those with the whole cache (mean; least and most of the texts). Where a
  text repeats word for word what stands far back, it is much; else it is little.
- *Bytes*: memory that the cache takes after the cut, spare room included, of what the whole cache takes.
- *Reading*: processor time for the prompt, of what it takes with the whole cache.
"""
_TABLE = """
| method | budget | first question | second question | loss | bytes | reading |
| --- | --- | --- | --- | --- | --- | --- |
"""


def eviction_page(folder: Path) -> str:
    """The page, from the rows of all models in a folder."""
    parts = [_HEAD.format(after=AFTER)]
    for path in sorted(folder.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        title = f"{rows[0]['model']}, {rows[0]['length']:,} tokens, {len(rows[0]['rises'])} texts"
        parts.append(f"\n## {title}\n{_TABLE}")
        for row in sorted(rows, key=lambda row: (row["method"] != "full", -(row["share"] or 1), row["method"])):
            shares = [share_interval(*row[kind]) for kind in ("first", "second")]
            cells = [f"{share.mean:.2f} ({share.low:.2f} to {share.high:.2f})" for share in shares]
            budget, loss = ("all" if row["share"] is None else f"{row['share']:g}"), fmean(row["rises"])
            said = "0" if row["method"] == "full" else f"{loss:+.3f} ({min(row['rises']):+.3f} to {max(row['rises']):+.3f})"
            parts.append(f"| `{row['spec']}` | {budget} | {' | '.join(cells)} | {said} | {row['bytes']:.2f} | {row['reading']:.2f} |\n")
    parts.append("\nWritten by `make docs` from the rows in `docs/evidence/eviction/`, which `python benchmarks/eviction.py` writes.\n")
    return "".join(parts)
