"""Draws the page docs/agreement.md: what authors' own code and ours give on the same inputs.

`docs/evidence/agreement/METHOD.jsonl` holds the rows that benchmarks/agreement.py wrote; `not-compared.json` says by hand of which methods
no code could be run, and why.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from longreach.core.files import write_text
from longreach.reports.evidence import Cells, rows_of, table

AGREEMENT = ("method", "setting", "repository", "commit", "file", "compared", "inputs", "difference", "largest", "same", "differs")

_REASONS = "not-compared.json"
_INTRO = """\
Written by `make docs` from the rows in `docs/evidence/agreement/`. `python benchmarks/agreement.py --clones FOLDER` writes these: it takes
functions and classes out of clones of the authors' repositories, at the commits that are linked here, and runs them and ours on the same
inputs. Nothing of theirs is kept here. Definitions are run as they stand, without the rest of their files; what they import is today's
library of the same name, or what *inputs* says stands for it.

*Largest difference* is the largest absolute difference of two numbers, beside the largest number in theirs. Float32 in another order loses
up to 1e-5 of that in layers, networks and angles, and up to 1e-6 in frequencies, factors and what is counted. More is no rounding, and is
explained."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Args: rows: of `AGREEMENT`. reasons: method -> why it is not compared."""

    rows: Sequence[Cells] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def read_agreement(folder: Path) -> Agreement:
    """All rows in the folder, by method.

    Raises: ValueError, with file and line, for a row whose fields are not exactly those of its kind.
    """
    path = folder / _REASONS
    reasons = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Agreement(rows=rows_of(folder, "*.jsonl", AGREEMENT), reasons=reasons)


def write_agreement(folder: Path, rows: Iterable[Cells]) -> list[Path]:
    """Write a file for each method in the rows, in place of its old one; returns the files."""
    by_method: dict[str, list[Cells]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    paths = [folder / f"{method}.jsonl" for method in by_method]
    for path, own in zip(paths, by_method.values(), strict=True):
        write_text(path, "".join(f"{json.dumps(row)}\n" for row in own))
    return paths


def agreement_page(agreement: Agreement, methods: Iterable[str]) -> str:
    """What is the same, what is not and why, and what could not be compared; methods: all that there are."""
    rows = agreement.rows
    if not rows:
        return "# Agreement with authors' code\n\nNo rows are recorded.\n"
    same, different = ([row for row in rows if row["same"] is verdict] for verdict in (True, False))
    compared = {row["method"] for row in rows}
    parts = [
        "# Agreement with authors' code",
        _INTRO,
        f"{len(rows)} comparisons of {len(compared)} methods: {len(same)} are the same but for rounding, {len(different)} differ.",
        "## The same but for rounding",
        table(("setting", "authors' code", "compared", "inputs", "largest difference"), [_cells(row) for row in same]),
    ]
    if different:
        parts += [
            "## Different, and why",
            table(("setting", "authors' code", "compared", "inputs", "largest difference", "why"),
                  [(*_cells(row), row["differs"]) for row in different]),
        ]  # fmt: skip
    if agreement.reasons:
        parts += ["## Not compared", table(("method", "why"), [(f"`{name}`", why) for name, why in sorted(agreement.reasons.items())])]
    if rest := sorted(set(methods) - compared - set(agreement.reasons)):
        parts.append(f"Not looked at yet: {', '.join(f'`{name}`' for name in rest)}.")
    return "\n\n".join(parts) + "\n"


def _cells(row: Cells) -> tuple[str, ...]:
    name = row["file"].rpartition("/")[2]
    link = f"{row['repository']} [{name}](https://github.com/{row['repository']}/blob/{row['commit']}/{row['file']})"
    return f"`{row['setting']}`", link, row["compared"], row["inputs"], f"{row['difference']:.2g} of {row['largest']:.3g}"
