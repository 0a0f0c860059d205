"""Holds every method to its paper's claim on a model, and writes the rows of the evidence table.

    python benchmarks/evidence.py [--model FOLDER --name NAME] [--to 4096] [--fitted FILE]...

A method names its claims in its own file (`MethodInfo.claims`), and each file in longreach/evaluation/claims says how a number is taken,
with its interval. A method that has to be fitted takes part with the file that `longreach fit` wrote for the model. Rows go to
docs/evidence/NAME.jsonl; `make docs` draws the table. What was measured is kept in --rows, so that a second run only adds.
"""

import sys
from pathlib import Path

from _subject import Given, given, parser, texts_of

from longreach.cli._progress import BarProgress
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.core.fitting import FittedFile
from longreach.engine.fingerprint import fingerprint
from longreach.evaluation.claims.base import ClaimBench, LeftOut, Metric
from longreach.evaluation.evidence import claim_row, write


def evidence(found: Given, bench: ClaimBench) -> list[dict[str, object]]:
    """One row for each claim that can be held against the model; of the others it is printed why not."""
    rows: list[dict[str, object]] = []
    bench.subject.standard(start=bench.subject.window)  # what is wrong with the text or the lengths stops here, and not claim by claim
    for method in registry.methods():
        name = method.name()
        for claim in method.info.claims:
            try:
                if claim.metric not in registry.names("metric"):
                    raise LeftOut(f"{claim.metric} is taken by an experiment, on a model of its own")
                if method.info.fitted and name not in bench.fitted:
                    raise LeftOut("no --fitted file")
                metric: Metric = registry.module(claim.metric, "metric").METRIC
                finding = metric.take(name, bench)
            except LongreachError as error:
                print(f"{name}: {error}; its claim is left out")
                continue
            setting = f"`{finding.spec}`, {bench.subject.window} to {bench.subject.to} tokens"
            facts = {"model": found.facts["model"], "data": found.data, "setting": setting, "metric": metric.meaning}
            row = claim_row(name, claim, finding, **facts, command=found.command)
            mean, low, high = finding.interval
            print(f"{name}: {metric.meaning} {mean:.3g} ({low:.3g} to {high:.3g}, {finding.of}): {row['verdict']}", flush=True)
            rows.append(row)
    if not rows:
        raise LongreachError("no claim could be held against this model")
    return rows


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
            rows = evidence(found, ClaimBench(found.subject, texts_of(args), fitted))
            print(f"Rows: {write(args.out, found.facts, rows)}")
    except LongreachError as error:
        print(f"evidence: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
