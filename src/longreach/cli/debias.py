"""`longreach debias`: compares systems by annotated preferences, with and without what length does to them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longreach.evaluation.preferences.length_controlled import Compared
    from longreach.evaluation.preferences.ties import Outcomes

    Ruled = tuple[Outcomes, Outcomes]  # without the rule for ties, and with it


def debias(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Annotations in AlpacaEval's format (JSON or JSON Lines), or WildBench's; a system a file."),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The system that the others are compared with. [default: the first generator of a file]"),
    ] = None,
    difficulty: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="index and instruction_difficulty. [default: for each file, estimated from the others; for one file, none]"
        ),
    ] = None,
    gamed: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="AlpacaEval's df_gamed.csv: difficulties, and comparisons that hold the effect of length."),
    ] = None,
    tie: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="wildbench:500: also rewards where slight wins by more than so many characters are ties."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of resampling, which the intervals come from.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Compare systems by annotated preferences: as annotated, at equal lengths, and how much length explains."""
    if difficulty is not None and gamed is not None:
        raise InputError("--gamed brings difficulties of its own; leave --difficulty out")
    if repeated := next((path for path in files if files.count(path) > 1), None):
        raise InputError(f"{repeated} is given twice")

    from longreach.evaluation.preferences.annotations import read_annotations
    from longreach.evaluation.preferences.difficulty import read_difficulty, read_gamed
    from longreach.evaluation.preferences.length_controlled import check_together, compare
    from longreach.evaluation.preferences.ties import outcomes, parse_rule

    threshold = None if tie is None else parse_rule(tie)
    read = [read_annotations(path, baseline) for path in files]
    check_together(read)
    known = None if difficulty is None else read_difficulty(difficulty)
    found = compare(read, known, None if gamed is None else read_gamed(gamed), seed)
    by_place = {one.place: one for one in read}
    ruled = None if threshold is None else [(outcomes(by_place[one.place]), outcomes(by_place[one.place], threshold)) for one in found]
    if as_json:
        print(json.dumps(_as_json(found, ruled, threshold), allow_nan=False))
    else:
        _show(found, ruled, threshold)


def _as_json(found: "Sequence[Compared]", ruled: "list[Ruled] | None", threshold: float | None) -> dict[str, Any]:
    """Rates in percent; intervals as mean, low and high."""
    rows = [asdict(one) for one in found]
    for row in rows:
        for part in (row, row["controlled"] or {}):
            part |= {key: value._asdict() for key, value in part.items() if hasattr(value, "_asdict")}
    for row, (plain, by_rule) in zip(rows, ruled or [], strict=False):
        row["outcomes"] = {**asdict(plain), "reward": plain.reward}
        row["outcomes_with_rule"] = {**asdict(by_rule), "reward": by_rule.reward}
    return {"baseline": found[0].baseline, "tie_threshold": threshold, "systems": rows}


def _show(found: "Sequence[Compared]", ruled: "list[Ruled] | None", threshold: float | None) -> None:
    from rich.console import Console

    console, several = Console(highlight=False), len({one.system for one in found}) < len(found)
    names = [f"{one.system} ({one.place})" if several else one.system for one in found]
    columns = ("win rate", "at equal lengths", "95 %", "shorter", "longer", "explained", "spearman", "length", "n")
    table = new_table("system", *columns, title=f"against {found[0].baseline}")
    for name, one in zip(names, found, strict=True):
        table.add_row(name, *_cells(one))
    show(console, table)
    if ruled is not None:
        rewards = new_table(
            "system", "reward", f"K = {threshold:.0f}", "now ties", "clear wins", "slight", "ties", "slight losses", "clear"
        )
        for name, (plain, by_rule) in zip(names, ruled, strict=True):
            counts = (by_rule.turned, by_rule.win_much, by_rule.win, by_rule.tie, by_rule.lose, by_rule.lose_much)
            rewards.add_row(name, f"{plain.reward:+.1f}", f"{by_rule.reward:+.1f}", *(str(count) for count in counts))
        show(console, rewards)
    for line in _words(names, found, ruled is not None):
        console.print(line, soft_wrap=True, markup=False)


def _cells(one: "Compared") -> list[str]:
    """A row of the table; what cannot be told is empty."""
    cells = [f"{one.win_rate.mean:.1f} ± {one.win_rate_error:.1f}", "", "", "", "", "", ""]
    if (fit := one.controlled) is not None:
        rate = fit.rate
        cells[1:5] = [
            f"{rate.mean:.1f} ± {fit.standard_error:.1f}",
            f"{rate.low:.1f} to {rate.high:.1f}",
            f"{fit.shorter:.1f}",
            f"{fit.longer:.1f}",
        ]
    if one.effect is not None:
        cells[5:] = [f"{one.effect.deviance:.1%}", f"{one.effect.spearman:+.2f}"]
    failed = f" of {one.judged + one.failed}" if one.failed else ""
    return [*cells, f"{one.mean_length:.0f} / {one.baseline_mean_length:.0f}", f"{one.judged}{failed}"]


def _words(names: list[str], found: "Sequence[Compared]", with_rule: bool) -> list[str]:
    """What the numbers mean, and what has to be said of single systems."""
    lines = [
        "Win rates in percent, ± standard errors. at equal lengths: by a logistic model, with an interval from resampled instructions. "
        "shorter, longer: what it predicts at a standard deviation of the difference in length. explained: the share of the preferences' "
        "deviance that length alone explains. length: mean characters, system / baseline."
    ]
    if with_rule:
        lines.append(
            "reward: from -100 (clear losses) to 100; with K, slight wins of an answer longer by more than so many characters are ties."
        )
    models: dict[str, list[str]] = {}
    for name, one in zip(names, found, strict=True):
        if one.controlled is not None:
            models.setdefault(one.model, []).append(name)
    for model, having in models.items():
        whose = "" if len(models) == 1 else f" ({', '.join(having)})"
        lines.append(f"The model knows {model}{whose}.")
    return [*lines, *(f"{name}: {one.note}." for name, one in zip(names, found, strict=True) if one.note)]
