"""Rows and outcomes made by hand, for what is drawn from rows."""

from dataclasses import replace
from itertools import pairwise

from longreach.evaluation.rows import Row
from longreach.stretching.choice import choose, screening_order, standing
from longreach.stretching.stretch import Outcome
from longreach.stretching.tournament import Budget

WINDOW, TARGET = 128, 512
EDGES = (64, 128, 256, 512)
BLOCK = 64
DEPTHS = (0.0, 1.0)
TEXTS = {"novel": 3.0, "news": 4.0}  # the loss that each text costs by itself
SETTINGS = {
    "weights": "0123456789abcdef", "dtype": "float32", "device": "cpu", "memory": "VmHWM", "chunk_size": 512, "batch_size": 8,
}  # fmt: skip


def row(task, metric, method, **values):
    settings = {**SETTINGS, "metric": metric, **values.pop("settings")}
    made = Row(task=task, model="made", method=method, length=1, version="1", settings=settings, tokens_per_s=1000.0, peak_bytes=2_000_000)
    return replace(made, **values)


def losses(method="", rise=0.0, *, inside=0.0, task="loss", **values):
    """A row for each text and block of 64 tokens: what the text costs, and `inside` or `rise` on top of it, up to and beyond the window."""
    return [
        row(
            task, "loss", method, length=end, n=BLOCK, score=cost + (rise if end > WINDOW else inside),
            settings={"start": start, "span": [first, first + BLOCK], "text": text, "input": f"{text} {end}"}, **values,
        )
        for text, cost in TEXTS.items()
        for start, end in pairwise((0, *EDGES))
        if task == "loss" or end > WINDOW
        for first in range(start, end, BLOCK)
    ]  # fmt: skip


def answers(method="", right=10, of=10, *, at_window=10, task="needle", **values):
    """Four times `of` questions for each depth and length: beyond the window `right` in `of` are answered, inside it `at_window`."""
    return [
        row(
            task, metric, method, length=length, depth=depth, seed=0,
            score=float(sample < 4 * (right if length > WINDOW else at_window)),
            settings={"input": f"{length} {depth} {sample}"}, **values,
        )
        for length in (128, 256, 512)
        for depth in DEPTHS
        for sample in range(4 * of)
        for metric in ("likelihood", "generation")
    ]  # fmt: skip


STANDARD = losses(task=f"loss_inside:window_size={WINDOW}")


def stand(rows, *, forgets=False, bounded_memory=False, screened=False, **tuning):
    """The standing that the rows of one method give."""
    return standing(
        rows, STANDARD, method=rows[0].method, trained_window=WINDOW, forgets=forgets, bounded_memory=bounded_memory, screened=screened,
        **tuning,
    )  # fmt: skip


def outcome(*, purpose="recall", target_right=10, tuned=0):
    """A stretch of the model `made` by three methods, one of them screened, and one that could not be applied.

    With `tuned` steps, also of the model trained under the best of the methods, which is then the best of all.
    """
    recall = purpose == "recall"
    short = 1.0 if recall else None  # what `answers` say of the window

    def rows(method, rise, right, **values):
        return [*(answers(method, right) if recall else []), *losses(method, rise, **values)]

    stock, best, worse = rows("", 0.7, 3), rows("ntk:factor=8", 0.01, target_right, inside=0.002), rows("yarn:factor=4", 0.123, 6)
    forgetting = rows("sinks:window_size=124", 0.0, 1)
    full = [stand(best), stand(worse)]
    trained = [replace(one, model=f"made, tuned {tuned} steps") for one in rows("ntk:factor=8", -0.1, 10)] if tuned else []
    full += [stand(trained, tuned=tuned)] if tuned else []
    standings = [stand(stock), *screening_order(full), stand(forgetting, forgets=True, bounded_memory=True, screened=True)]
    return Outcome(
        model="made",
        trained_window=WINDOW,
        target=TARGET,
        purpose=purpose,
        choice=choose(standings, purpose, TARGET, short),
        standings=tuple(standings),
        refused={"linear:factor=4": "its rotary embedding is <scaled>; start anew"},
        rows=(*STANDARD, *stock, *best, *worse, *forgetting, *trained),
        budget=Budget(windows=2, samples=10, depths=DEPTHS),
        seed=7,
        text_sha256="ab" * 32,
        short=short,
    )
