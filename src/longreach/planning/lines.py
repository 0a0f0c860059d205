"""A plan in lines for people: in a terminal, and in docs/guide-memory.md."""

import json
from pathlib import Path

from longreach.checkpoints._safety import amount
from longreach.core.lengths import format_length
from longreach.planning.plan import PlannedMethod, ResourcePlan

OFF = 0.02  # share from which on it is said that a line misses
_OF_THE_MACHINE = ("fits", "prefill", "tokens/s")  # columns that a page leaves out


def lines_of(plan: ResourcePlan) -> list[tuple[PlannedMethod, dict[str, str]]]:
    """Cells by column for each method, one line for several where all their numbers are the same, with the first of these."""
    elsewhere = any(row.host or row.disk for row in plan.methods)
    found = []
    for row, *others in alike(plan):
        off = "" if row.error is None or row.error < OFF else "~"
        cells = {
            "method": f"{row.spec or 'as it is'}{f' and {len(others)} more' if others else ''}",
            "fits": "yes" if row.fits else "no",
            "reach": "all" if row.reaches else format_length(row.reach or 0),
            "peak": off + amount(row.peak),
            "cache": off + amount(row.reading),
            "after": off + amount(row.answered),
            "outside": amount(row.host + row.disk) if row.host or row.disk else "",
            "longest": _longest(row),
            "batch": str(row.largest_batch),
            "prefill": _seconds(row.prefill_seconds),
            "tokens/s": _rate(row.tokens_per_second),
            "loses": ", ".join(row.lost) or "nothing",
        }
        if not elsewhere:
            del cells["outside"]
        found.append((row, cells))
    return found


def alike(plan: ResourcePlan) -> list[list[PlannedMethod]]:
    """Methods with the same numbers together; not where they were timed."""
    groups: dict[str, list[PlannedMethod]] = {}
    for row in plan.methods:
        shown = (_longest(row), row.peak, row.reading, row.answered, row.host, row.disk, row.reaches, row.lost)
        groups.setdefault(str((*shown, row.spec if plan.measured_tokens else "", bool(row.spec))), []).append(row)
    return list(groups.values())


def plan_table(file: Path) -> str:
    """A page's table of a plan that `longreach plan --json` printed, with the command."""
    told = json.loads(file.read_text(encoding="utf-8"))
    plan = ResourcePlan(**{**told, "methods": tuple(PlannedMethod(**row) for row in told["methods"])})
    memory = f"{plan.memory / 2**30:g}GiB"
    command = f"longreach plan FOLDER --context {format_length(plan.context)} --memory {memory} --dtype {plan.dtype}"
    said = f"This is what `{command}`\nprints of {plan.model} (window {plan.window}), but for speed:"
    lines = [{name: text for name, text in cells.items() if name not in _OF_THE_MACHINE} for _, cells in lines_of(plan)]
    rows = [list(lines[0]), ["---"] * len(lines[0]), *([_code(cells.pop("method")), *cells.values()] for cells in lines)]
    return "\n".join([said, "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def _code(name: str) -> str:
    """The name of a line, whose spec is code."""
    spec, and_, more = name.partition(" and ")
    return name if name == "as it is" else f"`{spec}`{and_}{more}"


def _longest(row: PlannedMethod) -> str:
    if row.longest is None:
        return "no end"
    if row.longest == 0:
        return "?"
    return f"{row.longest // 1024}k" if row.longest >= 10240 else str(row.longest)


def _rate(tokens: float) -> str:
    """Tokens a second, to two or three digits: nothing finer is known."""
    return f"{tokens:.2g}" if tokens < 10 else f"{round(tokens, 1 - len(str(int(tokens))) + 1):,.0f}"


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
