"""What is tried, in which order, and what ends it. Time is what has been read: a token takes a second."""

from dataclasses import replace
from functools import partial

import pytest

from longreach.core.errors import LongreachError
from longreach.core.progress import Progress
from longreach.core.spec import parse
from longreach.evaluation.measure import octaves
from longreach.evaluation.rows import Rows
from longreach.stretching import stretch as stretching
from longreach.stretching import tournament
from longreach.stretching.candidates import Candidate, collect
from longreach.stretching.choice import choose
from longreach.stretching.clock import Clock
from longreach.stretching.stretch import stretch
from longreach.stretching.tournament import NO_TIME, NOT_NEEDED, Budget, Tournament
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

PLAIN = ["linear:factor=2", "ntk:factor=4", "yarn:factor=2"]
BY_CONTENT = "longheads:chunk_size=16,num_chunks=8"  # chooses by content what it sees, so that no text is shared


class Reader(Progress):
    """Its time passes as tokens are read, and it tells whose they were."""

    def __init__(self):
        self.seconds, self.read, self.told, self._label = 0, {}, [], ""

    def start(self, label, total):
        self._label = label.rpartition(": ")[0].partition(", text")[0]

    def advance(self, tokens):
        self.seconds += tokens
        self.read[self._label] = self.read.get(self._label, 0) + tokens

    def say(self, words):
        self.told.append(words)


def measuring(patch):
    """Runs with a clock that goes by tokens."""
    patch.setattr(tournament, "RECALLS", 0.0)

    def run(seconds=None, rows=None, methods=PLAIN, **settings):
        reader = Reader()
        patch.setattr(stretching, "Clock", partial(Clock, now=lambda: float(reader.seconds)))
        quick = {"windows": 2, "samples": 1, "depths": (0.0, 1.0), **settings}
        model = tiny_model(vocab_size=VOCABULARY)
        try:
            return reader, stretch(
                model, tokenizer(), name="tiny", to=256, text=real_text(), rows=rows, methods=methods, seconds=seconds, progress=reader,
                **quick,
            )  # fmt: skip
        except LongreachError as error:
            return reader, error

    return run


@pytest.fixture
def measured(monkeypatch):
    return measuring(monkeypatch)


@pytest.fixture(scope="module")
def whole():
    """A run without a budget."""
    with pytest.MonkeyPatch.context() as patch:
        return measuring(patch)()


def test_without_a_budget_all_is_tried(whole):
    reader, outcome = whole
    assert {one.method for one in outcome.standings} == {"", *PLAIN}
    assert outcome.refused == {}
    assert reader.told[0].endswith("; --budget TIME limits it.")


@pytest.mark.parametrize("share", [0.45, 0.6, 0.75, 0.9])
def test_a_budget_holds_and_names_what_was_not_tried(measured, whole, share):
    budget = share * whole[0].seconds
    reader, outcome = measured(seconds=budget)
    assert reader.seconds <= 1.05 * budget + 256, "a chunk may end"
    untried = {spec for spec, why in outcome.refused.items() if why == NO_TIME}
    assert untried
    assert untried == set(PLAIN) - {one.method for one in outcome.standings}
    assert outcome.standings[0].method == ""
    assert "what there is no time for is named at the end" in reader.told[0]
    many = f"There was no time for {len(untried)} method{'s' if len(untried) > 1 else ''} more; the same command goes on with what is left."
    assert outcome.choice.reason.endswith(many) is not outcome.choice.good_enough


@pytest.mark.parametrize("seconds", [1.0, 600.0, 1000.0])
def test_where_the_stock_model_takes_all_the_time_that_is_one_clear_line(measured, seconds):
    reader, error = measured(seconds=seconds)
    assert reader.seconds <= 1.05 * seconds + 256
    assert str(error).endswith(" was spent before the model as it is was measured; give more, or a shorter length")
    assert "\n" not in str(error)
    assert str(error).startswith("the time budget of ")


def test_the_next_run_goes_on_from_there(measured, whole):
    rows, counts = Rows(), []
    reader, best = whole
    for _ in range(8):  # each run reads a little more
        _, outcome = measured(seconds=0.4 * reader.seconds, rows=rows)
        counts.append(len(rows))
        if not isinstance(outcome, LongreachError) and not outcome.refused:
            break
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert not outcome.refused
    assert {one.method: one.rise.mean for one in outcome.standings} == pytest.approx({one.method: one.rise.mean for one in best.standings})
    assert outcome.choice.reason == best.choice.reason


def test_rows_are_kept_where_the_stock_model_was_not_done(measured):
    rows = Rows()
    _, error = measured(seconds=1000.0, rows=rows)
    assert isinstance(error, LongreachError)
    assert len(rows) > 0
    kept = {row.identity for row in rows}
    _, outcome = measured(rows=rows)
    assert kept <= {row.identity for row in outcome.rows}


def test_a_finalist_without_time_stands_as_it_was_screened(measured, monkeypatch):
    times = iter([True] * 4 + [False])  # for all in the screening and the first finalist

    def check(self, share):
        if not next(times):
            raise tournament.OutOfTime("spent")

    monkeypatch.setattr(Clock, "check", check)
    _, outcome = measured(finalists=2)
    assert [one.screened for one in outcome.standings] == [False, False, True, True]
    assert outcome.refused == {}


def test_what_was_read_when_the_time_was_spent_stands_as_screened(measured):
    whole, _ = measured(methods=PLAIN[:1])
    reader, outcome = measured(methods=PLAIN[:1], seconds=0.85 * whole.seconds)
    assert reader.seconds < whole.seconds
    assert [(one.method, one.screened, one.texts) for one in outcome.standings] == [("", False, 2), ("linear:factor=2", True, 1)]
    assert outcome.choice.best.method == "", "what was cut short is never chosen"


def test_screening_leaves_time_for_the_finalists(measured):
    whole, _ = measured(finalists=1)
    _, outcome = measured(seconds=0.8 * whole.seconds, finalists=1)
    (finalist,) = [one for one in outcome.standings if one.method and not one.screened]
    assert finalist.texts == 2
    assert NO_TIME in outcome.refused.values()


@pytest.fixture
def auto(monkeypatch):
    """`auto` suggests one method of each sort, whose needles are all found (`good`) or not."""
    monkeypatch.setattr(stretching, "collect", lambda *args: [Candidate(stack=parse(spec)) for spec in (BY_CONTENT, "linear:factor=2")])

    def judged(good):
        monkeypatch.setattr(tournament, "choose", lambda *args: replace(choose(*args), good_enough=good))

    return judged


def test_where_another_is_good_enough_it_is_not_tried(measured, auto):
    auto(True)
    reader, outcome = measured(methods=["auto"], finalists=9)
    assert outcome.refused[BY_CONTENT] == NOT_NEEDED
    assert not any(label.startswith("longheads") for label in reader.read)
    assert [one.method for one in outcome.standings] == ["", "linear:factor=2"]


def test_where_no_other_is_good_enough_it_is_tried_last(measured, auto):
    auto(False)
    reader, outcome = measured(methods=["auto"], finalists=9)
    assert BY_CONTENT not in outcome.refused
    assert {one.method for one in outcome.standings} == {"", "linear:factor=2", BY_CONTENT}
    order = [label.partition(":")[0] for label in reader.read]
    assert order.index("linear") < order.index("longheads")


def test_what_is_named_is_tried_in_any_case(measured, monkeypatch):
    monkeypatch.setattr(tournament, "choose", lambda *args: pytest.fail("nothing hangs on the others"))
    _, outcome = measured(methods=["linear:factor=2", BY_CONTENT])
    assert {one.method for one in outcome.standings} == {"", "linear:factor=2", BY_CONTENT}
    assert NOT_NEEDED not in outcome.refused.values()
    tasks = {row.method: row.task for row in outcome.rows if row.task.startswith("needle")}
    assert tasks[BY_CONTENT] == "needle"
    assert tasks["linear:factor=2"] == "needle:shared=true"


def test_what_fails_at_its_first_forward_is_listed(measured, monkeypatch):
    def fails(model):
        raise LongreachError("it needs a kernel")

    monkeypatch.setattr(tournament, "can_share", fails)
    _, outcome = measured(methods=["linear:factor=2"])
    assert [one.method for one in outcome.standings] == ["", "linear:factor=2"], "what is wrong is told when it is measured"


def test_the_estimate_grows_with_what_is_tried(monkeypatch):
    class Steady:
        """A token takes a second, a question ten."""

        asking = 5.0

        def __init__(self, *args):
            pass

        def reading(self, length):
            return float(length)

    monkeypatch.setattr(tournament, "Pace", Steady)
    reads, inside = 256, 2 * 128  # tokens of a text, and of what lies beyond the window in pieces that overlap by half
    asks = 25 * 10  # at every length
    stock = reads + len(octaves(128, 256)) * asks + inside
    yarn = reads + asks
    assert seconds(["yarn:factor=2"], 3) == (2 * (stock + yarn), 4 * (stock + yarn))
    assert seconds(PLAIN, 3) == (2 * (stock + 3 * yarn), 4 * (stock + 3 * yarn))
    assert seconds(PLAIN, 1) == (2 * stock + 4 * yarn, 4 * stock + 6 * yarn), "two are screened on one text"
    prompts = reads + 50 / 4 * 256  # one in four of ten prompts at each of five depths
    assert seconds([*PLAIN, BY_CONTENT], 4) == (2 * (stock + 3 * yarn + prompts), 4 * (stock + 3 * yarn + prompts))


def seconds(methods, finalists):
    common = {"to": 256, "trained_window": 128, "chunk_size": 64, "windows": None}
    clock = Clock(None, Progress())
    bench = Tournament(tiny_model(), tokenizer(), "tiny", common, "recall", Budget(windows=4), 0, clock)
    return bench.estimate(collect(methods, 128, 256), finalists)
