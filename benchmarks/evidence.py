"""Holds every method to what its paper claims without tuning the model, and writes the rows of the evidence table.

    python benchmarks/evidence.py [--model FOLDER --name NAME] [--to 4096] [--fitted FILE]...

A method names its claims in its own file (`MethodInfo.claims`), and each file in longreach/evaluation/claims says how a number is taken,
with its interval. A method that has to be fitted takes part with the file that `longreach fit` wrote for the model. Rows go to
docs/evidence/NAME.jsonl; `make docs` draws the table. What was measured is kept in --rows, so that a second run only adds.
"""

import sys
from functools import partial
from pathlib import Path

from _subject import given, parser, texts_of

from longreach.cli._progress import BarProgress
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.core.fitting import FittedFile
from longreach.engine.fingerprint import fingerprint
from longreach.evaluation.claims.base import ClaimBench
from longreach.evaluation.evidence import write
from longreach.evaluation.verdicts import claim_rows


def _fitted(path: Path) -> FittedFile:
    try:
        return FittedFile(str(path))
    except SpecError as error:
        raise InputError(f"--fitted {path}: {error}") from error


def main() -> None:
    """Measure, and write the rows."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--fitted",
        type=Path,
        action="append",
        default=[],
        help="a file of `longreach fit MODEL`, for a method to be fitted; may be repeated",
    )
    args = options.parse_args()
    try:
        with BarProgress() as progress:
            fitted = {file.data["method"]: file for file in map(_fitted, args.fitted)}
            found = given(args, "evidence.py", "".join(f" --fitted {path.name}" for path in args.fitted), progress)
            if wrong := [file.name for file in fitted.values() if file.data["weights"] != fingerprint(found.subject.model)]:
                raise InputError(f"--fitted {wrong[0]} was fitted to another model; run longreach fit {args.model}")
            facts = {"model": found.facts["model"], "data": found.data, "command": found.command}
            rows = claim_rows(
                ClaimBench(found.subject, texts_of(args), fitted), ("untuned", "trained"), say=partial(print, flush=True), **facts
            )
            if not rows:
                raise LongreachError("no claim could be held against this model")
            print(f"Rows: {write(args.out, found.facts, rows)}")
    except LongreachError as error:
        print(f"evidence: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
