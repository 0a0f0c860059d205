"""Compares all methods on one model at 1, 2, 4 and 8 times its trained window, and writes the rows of the docs' table.

    python benchmarks/lengths.py [--model FOLDER --name NAME] [--to 4096] [--also self_extend+log_n]... [--only METHOD]...

A method takes part by suggesting settings: at each length its first suggestion for that length, and at the trained window that for the
longest one, which shows what it costs short texts. A method that improves others is stacked on the best one that it improves. Rows go to
docs/evidence/lengths/NAME.jsonl; `make docs` draws the table. What was measured is kept in --rows, so that a run that was stopped goes on.
A model that was tuned to a length needs no method: `--only stock`.
"""

import sys
from collections.abc import Sequence

from _subject import Given, given, parser

from longreach.cli._progress import BarProgress
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError
from longreach.core.spec import check_spec, parse, unparse
from longreach.evaluation.applicable import refusal
from longreach.evaluation.by_length import entries
from longreach.evaluation.evidence import Subject, write

SAMPLES = 20  # questions of each depth and length: 100 in all
STOCK = "stock"  # the model as it is


def methods() -> list[str]:
    """Every method that works without training and stretches a model by itself; the model as it is comes first."""
    return [STOCK, *(each.name() for each in registry.methods() if each.info.training_free and not each.info.fitted)]


def spec_for(method: str, window: int, target: int) -> str | None:
    """The spec of a method for a target: a bare name at its beginning is its first suggestion; None where it suggests none."""
    first, plus, rest = method.partition("+")
    if method == STOCK:
        return ""
    if first not in registry.names():
        return unparse(parse(method, trained_window=window, target=target))
    suggested = registry.get(first).suggest(window, target)
    return f"{suggested[0].spec}{plus}{rest}" if suggested else None


def measure_method(method: str, subject: Subject, samples: int) -> list[dict[str, object]]:
    """One entry for each length, the trained window first; none where the method has no part in this."""
    longest = spec_for(method, subject.window, subject.to)
    if longest is None:
        return []
    if longest and (error := refusal(subject.model, parse(longest))) is not None:
        raise LongreachError(error.reason)
    beyond = [length for length in subject.edges if length > subject.window]
    settings = {subject.window: longest} | {length: spec_for(method, subject.window, length) for length in beyond}
    return entries("stock model" if method == STOCK else method, settings, subject, samples)


def stacks(measured: Sequence[Sequence[dict[str, object]]], subject: Subject) -> list[str]:
    """Every method that improves others, on the best one that it improves."""
    lasts = [of_method[-1] for of_method in measured if of_method]
    able = [last for last in lasts if last["setting"] and not last["forgets"]]
    able.sort(key=lambda last: (-(last["found"] or 0.0), last["rise"]))  # type: ignore[operator]
    found = []
    for name in [method.name() for method in registry.methods()]:
        for last in able:
            if wrappers := registry.get(name).suggest_on(parse(str(last["setting"]))[0]):
                found.append(f"{last['method']}+{unparse(wrappers[:1])}")
                break
    return found


def compare(found: Given, also: Sequence[str], only: Sequence[str], samples: int) -> list[dict[str, object]]:
    """The rows of all methods, and of those in `also`; or of those in `only`."""
    subject = found.subject
    measured = []

    def add(method: str) -> None:
        try:
            of_method = measure_method(method, subject, samples)
        except InputError:
            raise  # what is wrong with the text or the lengths
        except LongreachError as error:
            print(f"{method}: {error}; it is left out")
            return
        measured.append(of_method)
        for each in of_method:
            loss, share = ("-" if each[part] is None else f"{each[part]:.3f}" for part in ("rise", "found"))
            print(f"{each['method']} at {each['length']}: loss increase {loss}, found {share}  ({each['setting']})", flush=True)

    for method in only or methods():
        add(method)
    for method in dict.fromkeys([*([] if only else stacks(measured, subject)), *also]):
        add(method)
    if not any(measured):
        raise LongreachError("no method could be measured on this model")
    about = {"model": found.facts["model"], "window": subject.window, "condition": "untuned"}
    facts = {**about, "data": found.data, "command": found.command}
    return [{**facts, **entry} for of_method in measured for entry in of_method]


def check_named(method: str) -> None:
    """Refuse, before anything is measured, a method that does not parse or that suggests no setting of its own."""
    first, plus, rest = method.partition("+")
    if method == STOCK:
        return
    if first not in registry.names():
        check_spec(method)
        return
    if not registry.get(first).suggest(512, 4096):
        raise InputError(f"{first} suggests no setting of its own; write {first}:key=value, or stack it on another method")
    if plus:
        check_spec(rest)


def main() -> None:
    """Measure, and write the rows."""
    options = parser(__doc__ or "")
    options.add_argument("--also", metavar="METHOD", action="append", default=[], help="another method or stack, by name or as a spec")
    options.add_argument("--only", metavar="METHOD", action="append", default=[], help=f"only this one; {STOCK} is the model as it is")
    options.add_argument("--samples", type=int, default=SAMPLES, help=f"questions of each depth and length [default: {SAMPLES}]")
    args = options.parse_args()
    try:
        for method in (*args.also, *args.only):
            check_named(method)
        extra = [f" --{option} {method}" for option in ("also", "only") for method in getattr(args, option)]
        if args.samples != SAMPLES:
            extra.append(f" --samples {args.samples}")
        with BarProgress() as progress:
            found = given(args, "lengths.py", "".join(extra), progress)
            print(f"Rows: {write(args.out, found.facts, compare(found, args.also, args.only, args.samples), 'lengths')}")
    except LongreachError as error:
        print(f"lengths: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
