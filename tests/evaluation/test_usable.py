import json
import math
from dataclasses import replace

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.rows import Row
from longreach.evaluation.usable import loss_rises, retrieval_scores, short_scores, summarise, usable_length

LENGTHS = (256, 512, 1024, 2048)


def row(task, metric, length, score, given, **values):
    values = {"model": "m", "method": "", "seed": 0, "version": "1", "tokens_per_s": 10.0, "peak_bytes": 5, **values}
    settings = {"metric": metric, "input": given, **values.pop("settings", {})}
    return Row(task=task, length=length, settings=settings, score=score, **values)


def losses(*texts, task="loss"):
    """Each text's losses by length, one block for each octave."""
    return [
        block(length, value, str(number), task=task)
        for number, text in enumerate(texts)
        for length, value in zip(LENGTHS, text, strict=True)
    ]


def block(length, score, text, share=(0, 1), **values):
    """The loss of part of an octave: between two shares of it."""
    half = length // 2
    span = [half + round(each * half) for each in share]
    values = {"task": "loss", **values}
    return row(
        metric="loss",
        length=length,
        score=score,
        given=f"{text} {length}",
        n=span[1] - span[0],
        settings={"span": span, "text": text, "start": half},
        **values,
    )


def retrieval(task, *by_length, metric="likelihood", each=10):
    """For each length the tens of hits among 10 times `each` prompts, at two depths."""
    return [
        row(task, metric, length, float(i < hits * each), f"{length} {i}", depth=float(i % 2))
        for length, hits in zip(LENGTHS, by_length, strict=True)
        for i in range(10 * each)
    ]


def test_a_rise_is_paired_over_texts():
    # Differences at 1024: mean 0.2, deviation 0.1, t(2) = 4.30265: 0.2 +- 0.24842. Texts differ by 10 nats: pairing matters.
    rises = loss_rises(losses((3, 2, 2.1, 5), (13, 12, 12.2, 15), (23, 22, 22.3, 25)), 512)
    assert list(rises) == [1024, 2048]
    assert rises[1024].mean == pytest.approx(0.2)
    assert rises[1024].high - rises[1024].mean == pytest.approx(0.24842, abs=1e-5)
    assert (rises[2048].mean, rises[2048].low, rises[2048].high) == pytest.approx((3, 3, 3))


def test_a_rise_over_the_same_tokens_is_paired_over_blocks():
    """Differences: 0.1, 0.3, 0.2, twice: deviation 0.08944, six blocks that count as three, t(2) = 4.30265; texts differ by nats."""
    far = [
        block(1024, 2.1, "a", (0, 0.25)), block(1024, 2.3, "a", (0.25, 0.5)), block(1024, 7.2, "a", (0.5, 0.75)),
        block(1024, 7.1, "a", (0.75, 1)), block(1024, 30.3, "b", (0, 0.5)), block(1024, 30.2, "b", (0.5, 1)),
    ]  # fmt: skip
    costs = (2.0, 2.0, 7.0, 7.0, 30.0, 30.0)
    inside = [replace(one, task="loss_inside:window_size=512", score=score) for one, score in zip(far, costs, strict=True)]
    rises = loss_rises([*far, *inside[::-1]], 512)
    assert list(rises) == [1024]
    assert (rises[1024].mean, rises[1024].high - rises[1024].mean) == pytest.approx((0.2, 0.22219), abs=1e-5)
    window = [block(512, 2.0, "a", (0, 0.25)), block(512, 4.0, "a", (0.25, 1)), block(512, 30.0, "b")]
    # Without the standard: each text's mean over its tokens, 4.675 - 3.5 and 30.25 - 30.
    assert loss_rises([*far, *inside[1:], *window], 512)[1024].mean == pytest.approx((1.175 + 0.25) / 2)


def test_the_order_of_rows_does_not_matter():
    rows = losses((3, 2, 2.1, 5), (13, 12, 12.2, 15), (23, 22, 22.3, 25))
    assert loss_rises(rows[::-1], 512) == loss_rises(rows, 512)


@pytest.mark.parametrize(
    ("windows", "by_loss", "risen_at", "undecided"),
    [
        (((3, 2, 1.9, 1.9), (3, 2.5, 2.4, 2.4), (3, 2, 1.9, 1.9)), 2048, None, None),
        (((3, 2, 2.1, 5), (3, 2, 2.2, 5), (3, 2, 2.3, 5.1)), 512, 2048, 1024),  # 0.2 +- 0.25: it cannot be told
        (((3, 2, 2.19, 5), (3, 2, 2.2, 5), (3, 2, 2.21, 5.1)), 512, 1024, None),  # 0.2 +- 0.02 is a rise
        (((3, 2, 2.19, 2), (3, 2, 2.2, 2), (3, 2, 2.21, 2)), 512, 1024, None),  # what comes after a rise does not count
        (((3, 2, 2.1, 2), (3, 2, 1.9, 2), (3, 2, 2.3, 2)), 512, None, 1024),  # nor does what comes after what cannot be told
        (((3, 2, 2.04, 2.04), (3, 2, 2.04, 2.04)), 2048, None, None),  # a rise within the bar
        (((3, 9, 3, 3), (3, 9, 3, 3.1)), 2048, None, None),  # losses inside the window are not compared
        (((3, 2, 2, 2),), 512, None, 1024),  # one block tells nothing
    ],
)
def test_usable_by_loss(windows, by_loss, risen_at, undecided):
    usable = usable_length(losses(*windows), 512)
    assert (usable.by_loss, usable.risen_at) == (by_loss, risen_at)
    assert (usable.rise is None) == (risen_at is None)
    assert (None if usable.open_loss is None else usable.open_loss.length) == undecided
    assert (usable.by_retrieval, usable.both, usable.missed_at, usable.misses, usable.open_retrieval) == (None, None, None, {}, None)


@pytest.mark.parametrize(
    ("passkey", "needle", "by_retrieval", "missed_at", "misses", "undecided"),
    [
        ((10, 10, 10, 10), (10, 10, 10, 10), 2048, None, {}, None),
        ((10, 10, 9, 10), (10, 10, 10, 10), 512, None, {}, (1024, "passkey")),
        ((10, 10, 9, 7), (10, 10, 10, 9), 512, 2048, {"passkey": 0.7}, (1024, "passkey")),
        ((10, 10, 7, 7), (10, 10, 6, 10), 512, 1024, {"needle": 0.6, "passkey": 0.7}, None),
        ((9, 9, 9, 5), (10, 10, 10, 10), 1024, 2048, {"passkey": 0.5}, None),  # 0.9 inside: the bar is 0.765
        ((8, 8, 7, 4), (10, 10, 10, 10), 512, 2048, {"passkey": 0.4}, (1024, "passkey")),
        ((10, 8, 10, 10), (10, 9, 10, 10), 2048, None, {}, None),  # what lies inside the window makes the bar, and is not open
        ((10, 4, 10, 10), (10, 10, 10, 10), 256, 512, {"passkey": 0.4}, None),  # but it can fall short of it
    ],
)
def test_usable_by_retrieval(passkey, needle, by_retrieval, missed_at, misses, undecided):
    usable = usable_length([*retrieval("passkey", *passkey), *retrieval("needle", *needle)], 512)
    assert (usable.by_retrieval, usable.missed_at, usable.misses) == (by_retrieval, missed_at, misses)
    assert (usable.by_loss, usable.both, list(usable.short)) == (None, None, ["needle", "passkey"])
    found = usable.open_retrieval
    assert (None if found is None else (found.length, found.about)) == undecided


def test_what_is_open_says_what_would_decide_it():
    few = usable_length(retrieval("passkey", 10, 10, 10, 10, each=2), 512).open_retrieval
    assert (few.length, few.n, few.needed) == (1024, 20, 28)  # 20 of 20 may be 0.80
    assert few.interval.low == pytest.approx(0.8011, abs=1e-4)
    wide = usable_length(losses((3, 2, 2.1, 2), (3, 2, 1.9, 2), (3, 2, 2.0, 2)), 512).open_loss
    half = wide.interval.high  # its mean is 0
    assert (wide.n, wide.needed) == (3, math.ceil(3 * (half / 0.05) ** 2))
    assert usable_length(losses((3, 2, 2, 2)), 512).open_loss.needed is None


def test_programs_get_intervals_without_infinity():
    found = usable_length([*losses((3, 2, 2, 2)), *retrieval("passkey", 10, 10, 10, 10, each=1)], 512).as_json()
    json.dumps(found, allow_nan=False)
    assert found["open_loss"]["interval"] == {"mean": 0, "low": None, "high": None}


def test_both_is_the_smaller():
    good, bad = losses((3, 2, 2, 2), (3, 2, 2, 2)), losses((3, 2, 3, 3), (3, 2, 3, 3))
    assert usable_length([*good, *retrieval("passkey", 10, 10, 10, 0)], 512).both == 1024
    assert usable_length([*bad, *retrieval("passkey", 10, 10, 10, 0)], 512).both == 512
    assert usable_length([*bad, *retrieval("passkey", 10, 0, 10, 0)], 512).both == 256


def test_the_same_tokens_inside_the_window_are_the_standard_where_they_were_read():
    texts = [(3, 2, 3, 4)] * 4
    harder = losses(*texts)  # the text itself is harder further on
    inside = [row for row in losses(*texts, task="loss_inside:window_size=512") if row.length > 512]
    assert usable_length(harder, 512).by_loss == 512
    assert usable_length([*harder, *inside], 512).by_loss == 2048
    other = [replace(row, task="loss_inside:window_size=256") for row in inside]
    assert usable_length([*harder, *other], 512).by_loss == 512
    assert usable_length(inside, 512).by_loss is None


def test_metrics_are_apart():
    rows = [*retrieval("passkey", 10, 10, 10, 10), *retrieval("passkey", 8, 6, 7, 0, metric="generation")]
    assert usable_length(rows, 512).by_retrieval == 2048
    written = usable_length(rows, 512, metric="generation")
    assert (written.by_retrieval, written.missed_at, written.open_retrieval.length) == (512, 2048, 1024)
    assert (short_scores(rows, 512), short_scores(rows, 512, "generation")) == ({"passkey": 1.0}, {"passkey": 0.7})
    assert retrieval_scores(rows, "generation") == {
        256: {"passkey": 0.8},
        512: {"passkey": 0.6},
        1024: {"passkey": 0.7},
        2048: {"passkey": 0},
    }


def test_a_model_that_does_not_retrieve_inside_its_window_is_judged_by_its_loss():
    good = losses((3, 2, 2, 2), (3, 2, 2, 2))
    usable = usable_length([*good, *retrieval("needle", 4, 5, 0, 0)], 512)
    assert (usable.by_loss, usable.by_retrieval, usable.both, usable.missed_at) == (2048, None, 2048, None)
    assert "retrieval says nothing, for inside its window the model finds only 0.45 of needle" in str(usable)
    assert "by both" not in str(usable)
    half = usable_length([*good, *retrieval("needle", 5, 5, 0, 0)], 512)
    assert (half.by_retrieval, half.both, half.missed_at) == (512, 512, 1024)
    one = usable_length([*good, *retrieval("needle", 4, 4, 0, 0), *retrieval("passkey", 10, 10, 10, 10)], 512)
    assert (one.by_retrieval, one.both) == (None, 2048), "the worst task counts"
    alone = usable_length(retrieval("needle", 4, 5, 0, 0), 512)
    assert (alone.by_retrieval, alone.both) == (None, None)


def test_where_nothing_was_asked_inside_the_window_all_has_to_be_found():
    rows = [row for row in retrieval("passkey", 0, 0, 10, 8) if row.length > 512]
    usable = usable_length(rows, 512)
    assert (usable.short, usable.by_retrieval, usable.open_retrieval.length) == ({"passkey": 1.0}, 1024, 2048)


def test_summaries_have_intervals_speed_and_memory():
    rows = [
        block(512, 1.0, "a", tokens_per_s=10.0, peak_bytes=5),
        block(512, 3.0, "b", tokens_per_s=30.0, peak_bytes=9),
        block(512, 1.0, "c", tokens_per_s=10.0, peak_bytes=5),
        block(512, 3.0, "d", tokens_per_s=30.0, peak_bytes=9),
        block(1024, 7.0, "a"),
        *(row("passkey", "likelihood", 512, score, str(i), depth=0.5) for i, score in enumerate((1.0, 1.0, 0.0, 1.0))),
        row("passkey", "generation", 512, 0.0, "0", depth=0.5),
    ]
    loss, lone, likely, written = summarise(rows)
    assert (loss.score, loss.n, loss.tokens_per_s, loss.peak_bytes) == (2.0, 4, 15.0, 9)  # equally many tokens each: 2 / (1/10 + 1/30)
    assert loss.high - 2 == pytest.approx(10.3746, abs=1e-4)  # deviation 1.1547, of four blocks that count as two: over sqrt(2), times t(1)
    assert loss.settings == {"metric": "loss", "start": 256}
    assert (lone.score, lone.low, lone.high) == (7.0, None, None)
    assert (likely.score, likely.n) == (0.75, 4)
    assert (likely.low, likely.high) == pytest.approx((0.151288, 0.997476), abs=1e-5)
    assert (written.score, written.n) == (0.0, 1)


def test_rows_that_do_not_belong_together_are_refused():
    rows = losses((3, 2, 2, 2), (3, 2, 2, 2))
    for change in ({"model": "other"}, {"method": "log_n"}):
        with pytest.raises(InputError, match="one model under one method"):
            usable_length([*rows, block(256, 1.0, "x", **change)], 512)
    with pytest.raises(InputError, match="nothing was measured"):
        usable_length([], 512)
    assert usable_length(rows, 300).by_loss == 256  # nothing to compare what lies beyond with
    with pytest.raises(InputError, match="was not measured"):
        summarise([block(512, None, "a")])
