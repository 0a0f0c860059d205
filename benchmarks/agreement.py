"""Runs authors' own code and ours on the same inputs, and writes the rows of docs/agreement.md.

    python benchmarks/agreement.py --clones FOLDER [--only METHOD]...

FOLDER holds clones of the authors' repositories with all their commits, each called NAME or OWNER+NAME; without a clone that is needed,
the command that makes it is printed. Each comparison is a function in benchmarks/_agreement, which says the repository, the commit and the
file. Rows go to docs/evidence/agreement; `make docs` draws the page. It runs other people's code: read it first, as you would before you
install it. longheads also needs einops (pip install einops).
"""

import argparse
import sys
from pathlib import Path

from _agreement.base import Comparison, comparisons, without_clone

from longreach.core.errors import InputError, LongreachError
from longreach.reports.agreement import write_agreement

ROWS = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "agreement"


def agreement(clones: Path, only: list[str]) -> list[dict[str, object]]:
    """The rows of all comparisons, or of those of some methods.

    Raises: InputError for a method that is not compared, and where a clone is missing; LongreachError for a difference that is not
    explained, and for an explanation of what is the same.
    """
    found = comparisons()
    if unknown := sorted(set(only) - {one.method for one in found}):
        raise InputError(f"--only {unknown[0]}: it is not compared; choose from {', '.join(sorted({one.method for one in found}))}")
    found = [one for one in found if not only or one.method in only]
    if missing := list(without_clone(found, clones)):
        raise InputError("\n".join(missing))
    return [_row(one, clones) for one in found]


def _row(comparison: Comparison, clones: Path) -> dict[str, object]:
    row = comparison.row(clones)
    words, says = ("the same", "says") if row["same"] else ("different", "does not say")
    print(f"{comparison.setting}: {row['difference']:.2g} of {row['largest']:.3g}, {words} ({comparison.file})", flush=True)
    if row["same"] == bool(row["differs"]):
        raise LongreachError(f"{comparison.setting}: {words}, but its comparison {says} why it differs")
    return row


def main() -> None:
    """Compare, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", type=Path, required=True, help="folder with clones of the authors' repositories")
    parser.add_argument("--only", action="append", default=[], metavar="METHOD", help="of this method alone; may be repeated")
    parser.add_argument("--out", type=Path, default=ROWS, help="folder for the rows (default: docs/evidence/agreement)")
    args = parser.parse_args()
    try:
        rows = agreement(args.clones, args.only)
        args.out.mkdir(parents=True, exist_ok=True)
        print(f"Rows: {len(rows)} in {len(write_agreement(args.out, rows))} files of {args.out}")
    except LongreachError as error:
        print(f"agreement: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
