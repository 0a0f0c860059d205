"""Compares all methods on one model at 1, 2, 4 and 8 times its trained window, and writes the rows of the docs' table.

    python benchmarks/lengths.py [--model FOLDER --name NAME] [--to 4096] [--also self_extend+log_n]...

A method takes part by suggesting settings: at each length its first suggestion for that length, and at the trained window that for the
longest one, which shows what it costs short texts. A method that improves others is stacked on the best one that it improves. Rows go to
docs/evidence/lengths/NAME.jsonl; `make docs` draws the table. What was measured is kept in --rows, so that a run that was stopped goes on.
"""

import math
import sys
from collections.abc import Sequence
from statistics import harmonic_mean

from _subject import Given, given, parser

from longreach.cli._progress import BarProgress
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError
from longreach.core.spec import check_spec, parse, unparse
from longreach.evaluation.candidates import Candidate, applicable
from longreach.evaluation.evidence import Subject, bounds, found_share, write
from longreach.evaluation.intervals import Interval, mean_interval

SAMPLES = 4  # prompts of each depth and length
STOCK = ""


def methods() -> list[str]:
    """Every method that works without training and stretches a model by itself; the model as it is comes first."""
    return [STOCK, *(name for name in registry.names() if registry.get(name).info.training_free and not registry.get(name).info.fitted)]


def spec_for(method: str, window: int, target: int) -> str | None:
    """The spec of a method for a target: a bare name at its beginning is its first suggestion; None where it suggests none."""
    first, plus, rest = method.partition("+")
    if first not in registry.names():
        return unparse(parse(method, trained_window=window, target=target)) if method else STOCK
    suggested = registry.get(first).suggest(window, target)
    return f"{suggested[0].spec}{plus}{rest}" if suggested else None


def measure_method(method: str, subject: Subject, samples: int) -> list[dict[str, object]]:
    """One entry for each length, the trained window first; none where the method has no part in this."""
    longest = spec_for(method, subject.window, subject.to)
    if longest is None:
        return []
    if longest:
        _, refused = applicable(subject.model, [Candidate(stack=parse(longest))])
        if refused:
            raise LongreachError(refused[longest])
    entries = []
    before = {end: start for start, end in zip((0, *subject.edges), subject.edges, strict=False)}
    for length in (edge for edge in subject.edges if edge >= subject.window):
        spec = longest if length == subject.window else spec_for(method, subject.window, length)
        rises = {} if spec is None else subject.rises(spec, start=before[length], end=length)
        losses = {} if spec is None else subject.losses(spec, start=before[length], end=length)
        answers = {} if spec is None else subject.answers(spec, length, samples)
        speed = [row for row in subject.loss_rows(spec, length) if row.length == length] if losses and spec is not None else []
        entries.append(
            {
                "method": method or "stock model", "setting": spec, "length": length, "texts": len(rises), "prompts": len(answers),
                "loss": mean_interval(list(losses.values())).mean if losses else None,
                **bounds(mean_interval(list(rises.values())) if rises else _NOTHING, "rise", "rise_low", "rise_high"),
                **bounds(found_share(answers) if answers else _NOTHING, "found", "found_low", "found_high"),
                "tokens_per_s": harmonic_mean([row.tokens_per_s or 0.0 for row in speed]) if speed else None,
                "peak_bytes": max((row.peak_bytes or 0 for row in speed), default=None),
                "forgets": bool(spec) and any(one.info.forgets for one in parse(spec)),
            }
        )  # fmt: skip
    return entries


_NOTHING = Interval(math.nan, math.nan, math.nan)


def stacks(measured: Sequence[Sequence[dict[str, object]]], subject: Subject) -> list[str]:
    """Every method that improves others, on the best one that it improves."""
    able = [entries[-1] for entries in measured if entries and entries[-1]["setting"] and not entries[-1]["forgets"]]
    able.sort(key=lambda last: (-(last["found"] or 0.0), last["rise"]))  # type: ignore[operator]
    found = []
    for name in registry.names():
        for last in able:
            if wrappers := registry.get(name).suggest_on(parse(str(last["setting"]))[0]):
                found.append(f"{last['method']}+{unparse(wrappers[:1])}")
                break
    return found


def compare(found: Given, also: Sequence[str], samples: int) -> list[dict[str, object]]:
    """The rows of all methods."""
    subject = found.subject
    measured = []

    def add(method: str) -> None:
        try:
            entries = measure_method(method, subject, samples)
        except InputError:
            raise  # what is wrong with the text or the lengths
        except LongreachError as error:
            print(f"{method or 'stock model'}: {error}; it is left out")
            return
        measured.append(entries)
        for each in entries:
            loss, share = ("-" if each[part] is None else f"{each[part]:.3f}" for part in ("rise", "found"))
            print(f"{each['method']} at {each['length']}: loss {loss} above inside, found {share}  ({each['setting']})", flush=True)

    for method in methods():
        add(method)
    for method in dict.fromkeys([*stacks(measured, subject), *also]):
        add(method)
    facts = {"model": found.facts["model"], "window": subject.window, "data": found.data, "command": found.command}
    return [{**facts, **entry} for entries in measured for entry in entries]


def check_also(method: str) -> None:
    """Refuse, before anything is measured, a method that does not parse or that suggests no setting of its own."""
    first, plus, rest = method.partition("+")
    if first not in registry.names():
        check_spec(method)
        return
    if not registry.get(first).suggest(512, 4096):
        raise InputError(f"--also {method}: {first} suggests no setting of its own; write {first}:key=value, or stack it on another method")
    if plus:
        check_spec(rest)


def main() -> None:
    """Measure, and write the rows."""
    options = parser(__doc__ or "")
    options.add_argument("--also", metavar="METHOD", action="append", default=[], help="another method or stack, by name or as a spec")
    options.add_argument("--samples", type=int, default=SAMPLES, help=f"prompts of each depth and length [default: {SAMPLES}]")
    args = options.parse_args()
    try:
        for method in args.also:
            check_also(method)
        few = "" if args.samples == SAMPLES else f" --samples {args.samples}"
        with BarProgress() as progress:
            found = given(args, "lengths.py", "".join(f" --also {method}" for method in args.also) + few, progress)
            print(f"Rows: {write(args.out, found.facts, compare(found, args.also, args.samples), 'lengths')}")
    except LongreachError as error:
        print(f"lengths: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
