import pytest

from longreach.core.progress import Progress
from longreach.stretching.clock import Clock, Labelled, OutOfTime, Pace, in_words
from longreach.testing.models import tiny_learned, tiny_model


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self):
        self.said, self.labels, self.tokens = [], [], 0

    def say(self, words):
        self.said.append(words)

    def start(self, label, total):
        self.labels.append((label, total))

    def advance(self, tokens):
        self.tokens += tokens


class Hands:
    """Shows the seconds that it is set to."""

    def __init__(self, at=0.0):
        self.at = at

    def __call__(self):
        return self.at


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "1 s"), (90, "90 s"), (119, "119 s"), (120, "2 min"), (900, "15 min"), (7199, "120 min"), (7200, "2.0 h"), (9000, "2.5 h")],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("limit", "times", "known", "says"),
    [
        (None, (30, 90), False, "Estimated time: about 30 s to 90 s; --budget TIME limits it."),
        (None, (90, 90.2), False, "Estimated time: about 90 s; --budget TIME limits it."),
        (None, (30, 900), True, "Estimated time: at most about 15 min; --budget TIME limits it."),
        (
            60.0, (30, 900), False,
            "Estimated time: about 30 s to 15 min; the budget is 60 s, and what there is no time for is named at the end.",
        ),
    ],
)  # fmt: skip
def test_the_estimate_says_what_limits_it(limit, times, known, says):
    told = Told()
    Clock(limit, told).expect(*times, known=known)
    assert told.said == [says]


def test_the_estimate_ends_where_training_begins():
    told = Told()
    Clock(None, told).expect(30, 90, known=False, trains=True)
    assert told.said == ["Estimated time before the training: about 30 s to 90 s; --budget TIME limits it."]


def test_a_candidate_begins_where_it_fits_into_its_share():
    now = Hands(1000.0)
    clock = Clock(100.0, Told(), now)
    now.at += 50
    clock.check(0.5)
    with clock.timed():
        now.at += 20
    clock.check(0.9)  # 70 s are spent, and one more takes 20
    with pytest.raises(OutOfTime, match="the time budget of 100 s was spent"):
        clock.check(0.85)


def test_shares_are_of_what_is_left():
    now = Hands()
    clock = Clock(100.0, Told(), now)
    now.at = 60.0
    with pytest.raises(OutOfTime):
        clock.check(0.5)
    clock.mark()
    clock.check(0.5)
    now.at = 80.0
    clock.check(0.5)
    now.at = 80.1
    with pytest.raises(OutOfTime):
        clock.check(0.5)
    clock.check(1)


def test_work_under_way_may_end_but_not_go_on():
    now, told = Hands(), Told()
    clock = Clock(100.0, told, now)
    now.at = 105.0
    clock.advance(7)
    now.at = 105.1
    with pytest.raises(OutOfTime):
        clock.advance(1)
    assert told.tokens == 8, "what is done is told before the work ends"


def test_without_a_limit_nothing_ends():
    now = Hands()
    clock = Clock(None, Told(), now)
    now.at = 1e9
    clock.check(0.0)
    clock.advance(1)


def test_training_takes_no_time_from_the_measuring():
    now = Hands()
    clock = Clock(100.0, Told(), now)
    now.at = 10.0
    with clock.stopped():
        now.at = 5000.0
    now.at += 5
    assert clock.spent == 15


def test_a_label_says_whose_work_it_is_and_the_rest_is_passed_on():
    told = Told()
    clock = Clock(None, told)
    labelled = Labelled(clock, "yarn:factor=2, text 2")
    labelled.start("loss", 100)
    labelled.advance(60)
    labelled.say("words")
    assert told.labels == [("yarn:factor=2, text 2: loss", 100)]
    assert (told.tokens, told.said) == (60, ["words"])


def test_longer_texts_take_longer():
    told = Told()
    pace = Pace(tiny_model(), 4096, 64, told)
    times = [pace.reading(length) for length in (32, 64, 128, 4096, 65536)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] >= 16 * times[-2] * (1 - 1e-9), "at least as many times as there is text"
    assert pace.asking > 0
    assert told.labels == [("estimating the time", 256)]
    assert told.tokens == 256


def test_later_chunks_that_take_longer_make_long_texts_dearer():
    pace = Pace(tiny_model(), 256, 64)
    pace.times = [1.0, 1.5, 2.0, 2.5]
    assert pace.reading(256) == pytest.approx(4 + 0.5 * 4 * 3 / 2)
    assert pace.reading(64) == pytest.approx(1)


def test_no_more_is_read_than_a_table_of_positions_holds():
    model = tiny_learned("gpt2")  # 128 positions
    pace = Pace(model, 4096, 512)
    assert len(pace.times) == 1
    assert pace.reading(256) == pytest.approx(2 * pace.reading(128))


def test_the_pace_can_be_out_of_time():
    now = Hands()
    clock = Clock(1.0, Told(), now)
    now.at = 2.0
    with pytest.raises(OutOfTime):
        Pace(tiny_model(), 256, 64, Labelled(clock, "stock"))
