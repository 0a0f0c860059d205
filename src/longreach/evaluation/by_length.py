"""The table of methods by length: loss and retrieval of each in the last octave up to each length, in the setting that it has there."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean, harmonic_mean
from typing import Any

from longreach.core.spec import parse
from longreach.evaluation.evidence import Subject, bounds, found_share
from longreach.evaluation.intervals import mean_interval

ALONE = 4  # questions of each depth and length where each needs a prompt of its own
_NO_NUMBERS: dict[str, Any] = {
    "texts": 0, "prompts": 0, "forgets": False,
    **dict.fromkeys(("loss", "rise", "rise_low", "rise_high", "found", "found_low", "found_high", "tokens_per_s", "peak_bytes")),
}  # fmt: skip


def entries(method: str, settings: Mapping[int, str | None], subject: Subject, samples: int) -> list[dict[str, Any]]:
    """One entry for each of the subject's lengths from the trained window on.

    Args: method: what the table calls it. settings: length -> spec; None where it suggests none. samples: questions of each depth and
    length, where questions share a text; else `ALONE`.
    """
    by_setting: dict[str, list[int]] = {}
    for length, spec in settings.items():
        if spec is not None:
            by_setting.setdefault(spec, []).append(length)
    for spec, lengths in by_setting.items():
        if subject.shares(spec):
            subject.read(spec, lengths, samples)  # once for all of its lengths; what follows finds its rows
    found = []
    for start, length in pairwise((0, *subject.edges)):
        if length in settings:
            spec = settings[length]
            numbers = _NO_NUMBERS if spec is None else _numbers(spec, subject, start, length, samples)
            found.append({"method": method, "setting": spec, "length": length, **numbers})
    return found


def _numbers(spec: str, subject: Subject, start: int, length: int, samples: int) -> dict[str, Any]:
    """Of the last octave of texts of that length, and of questions at that length; None where the model cannot read so far."""
    answers = subject.answers(spec, length, samples if subject.shares(spec) else min(samples, ALONE))
    losses, rises = subject.losses(spec, start=start, end=length), subject.rises(spec, start=start, end=length)
    speed = [row for row in subject.loss_rows(spec, length) if row.length == length]
    return _NO_NUMBERS | {
        "forgets": bool(spec) and any(one.info.forgets for one in parse(spec)),
        **({"prompts": len(answers), **bounds(found_share(answers), "found", "found_low", "found_high")} if answers else {}),
        **({"texts": len(rises), **bounds(mean_interval(list(rises.values())), "rise", "rise_low", "rise_high")} if rises else {}),
        **({"loss": fmean(losses.values())} if losses else {}),
        **({"tokens_per_s": harmonic_mean([row.tokens_per_s or 0.0 for row in speed])} if speed else {}),
        **({"peak_bytes": max(row.peak_bytes or 0 for row in speed)} if speed else {}),
    }
