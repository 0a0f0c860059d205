"""Cells end where what was found decides them, and not before."""

from itertools import pairwise

import pytest

from longreach.evaluation.cells import UNTIL_DECIDED, Cells, Stopping
from longreach.evaluation.rows import Row

WINDOW, DEPTHS = 512, 5
NEEDLE, INSIDE = "needle:shared=true", f"loss_inside:window_size={WINDOW}"


def row(task, metric, length, score, **settings):
    return Row(task=task, model="m", method="", length=length, version="1", settings={"metric": metric, **settings}, score=score)


def answer(length, right, number=0, task=NEEDLE):
    """Both rows of a question; generation is always wrong."""
    return [row(task, metric, length, score, input=str(number)) for metric, score in (("likelihood", float(right)), ("generation", 0.0))]


def losses(length, *scores, text="a", task="loss"):
    """Equal blocks of an octave."""
    half = length // 2
    cuts = [half + half * number // len(scores) for number in range(len(scores) + 1)]
    spans = map(list, pairwise(cuts))
    return [row(task, "loss", length, score, text=text, span=span) for score, span in zip(scores, spans, strict=True)]


def cells(stopping=UNTIL_DECIDED, *, decide=True):
    return Cells(WINDOW, stopping, depths=DEPTHS, decide=decide)


def asked(found, length, answers, task=NEEDLE):
    """How many answers were wanted before the cell ended."""
    for number, right in enumerate(answers):
        if not found.wanted(answer(length, 0, task=task)[0]):
            return number
        found.take(answer(length, right, f"{length} {number}", task))
    return len(answers)


def read(found, *texts, standard=0.0):
    """Take texts, each the losses of an octave of 1024, and the standard of each; whether more is wanted after each."""
    wanted = []
    for number, scores in enumerate(texts):
        found.take(losses(1024, *scores, text=str(number)))
        inside = losses(1024, *[standard] * len(scores), text=str(number), task=INSIDE)
        found.take(inside)
        found.end_text(inside)
        wanted.append(found.wanted(losses(1024, 0.0)[0]))
    return wanted


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([1] * 60, 28),  # of 28 right answers the share is at least 0.85
        ([0] * 60, DEPTHS),  # 3 wrong ones tell, but every depth is asked about
        ([1, 0, 1, 1, 1] * 20, 100),  # 0.8 is too near the bar
        ([1] * 27 + [0] + [1] * 60, 43),
    ],
)
def test_a_retrieval_beyond_the_window_ends_where_it_is_decided(answers, count):
    assert asked(cells(), 1024, answers) == count


def test_lengths_and_tasks_end_by_themselves():
    found = cells()
    assert asked(found, 1024, [1] * 60) == 28
    assert asked(found, 2048, [0] * 60) == 5
    assert asked(found, 1024, [1] * 60, "passkey") == 28
    assert not found.wanted(answer(1024, 1)[1]), "generation ends with likelihood"


def test_inside_the_window_fifty_answers_are_enough_whatever_they_are():
    for answers in ([1] * 70, [0] * 70, [1, 0] * 35):
        assert asked(cells(), 256, answers) == 50
        assert asked(cells(), WINDOW, answers) == 50


def test_the_bar_is_set_by_what_is_found_inside_the_window():
    found = cells()
    asked(found, 256, [1, 0] * 25)
    asked(found, 512, [1, 1, 1, 0, 0] * 10)
    # 55 of 100 inside: the bar is 0.4675
    assert asked(found, 1024, [1] * 60) < 10
    assert asked(found, 2048, [0] * 60) > DEPTHS
    strict = cells(Stopping(short=1.0))
    asked(strict, 256, [1, 0] * 25)
    assert asked(strict, 1024, [1] * 60) == 28
    assert asked(cells(Stopping(short=0.55)), 1024, [1] * 60) == asked(found, 4096, [1] * 60)


def test_a_retrieval_ends_after_two_texts_where_all_would_not_decide():
    def wanted_after(texts, *answers):
        found = Cells(WINDOW, UNTIL_DECIDED, depths=DEPTHS, decide=True, shared=[NEEDLE], texts=texts)
        for number, of_text in enumerate(answers):
            for place, right in enumerate(of_text):
                found.take(answer(1024, right, f"{number} {place}"))
            found.end_text([])
        return found.wanted(answer(1024, 0)[0])

    close, clear = [1] * 21 + [0] * 4, [0] + [1] * 24  # 0.84 and 0.96; the bar is 0.85
    assert wanted_after(4, close), "one text tells nothing about the others"
    assert not wanted_after(4, close, close), "84 of 100 would not decide"
    assert wanted_after(4, clear, clear), "96 of 100 would"
    assert wanted_after(4000, close, close), "that many tell 0.84 from 0.85"
    assert not wanted_after(2, clear, clear), "there is no other text"


@pytest.mark.parametrize(("answers", "give_up", "wanted"), [([0] * 5, True, False), ([0] * 5, False, True), ([1] * 20, True, True)])
def test_the_loss_is_of_no_interest_where_needles_rule_out_that_all_is_good(answers, give_up, wanted):
    found = cells(Stopping(give_up=give_up, standard=losses(1024, 0.0, 0.0, text="a", task=INSIDE)))
    asked(found, 1024, answers)
    found.take(losses(1024, 0.02, 0.06, text="a"))
    found.end_text([])
    assert found.wanted(losses(1024, 0.0)[0]) is wanted
    assert found.open is wanted


def test_inside_the_window_of_another_models_bars_fewer_answers_do():
    assert asked(cells(Stopping(short=0.9)), 256, [1, 0] * 35) == 25


def test_a_loss_is_only_called_low_after_two_texts():
    low = (0.01, 0.0, 0.02, 0.01)
    assert read(cells(), low, low) == [True, False]


def test_a_risen_loss_is_told_by_one_text():
    assert read(cells(), (0.3, 0.31, 0.29, 0.3)) == [False]


def test_a_loss_near_the_bar_is_read_on():
    assert read(cells(), *[(0.0, 0.1, 0.02, 0.09)] * 4) == [True] * 4


def test_the_standard_can_be_given():
    given = [one for text in "01" for one in losses(1024, 3.0, 5.0, text=text, task=INSIDE)]
    found = cells(Stopping(standard=given))
    for text in "01":
        found.take(losses(1024, 3.0, 5.001, text=text))
        found.end_text([])
    assert not found.wanted(losses(1024, 0.0)[0])


def test_without_a_standard_two_texts_are_read():
    found = cells()
    for number, wanted in ((0, True), (1, False)):
        found.take(losses(1024, 3.0, 5.0, text=str(number)))
        found.end_text([])
        assert found.wanted(losses(1024, 0.0)[0]) == wanted


def test_inside_the_window_a_loss_takes_two_texts():
    found = cells()
    for number, wanted in enumerate((True, False)):
        found.take(losses(256, 3.0, 4.0, text=str(number)))
        found.end_text([])
        assert found.wanted(losses(256, 0.0)[0]) == found.open == wanted


def test_everything_is_wanted_where_nothing_is_decided():
    found = cells(Stopping(give_up=True), decide=False)
    assert asked(found, 1024, [1] * 60) == 60
    assert asked(found, 256, [1] * 60) == 60
    assert read(found, *[(1.0, 1.01, 0.99, 1.0)] * 3) == [True] * 3


# --- a model that is lost


@pytest.mark.parametrize(
    ("rise", "answers", "goes_on"),
    [
        ((0.5, 0.51, 0.49, 0.5), [0] * 5, False),
        ((0.5, 0.51, 0.49, 0.5), [], False),  # nothing was asked there
        ((0.5, 0.51, 0.49, 0.5), [1] * 28, True),  # it still finds what it is asked for
        ((0.5, 0.51, 0.49, 0.5), [1, 0, 1, 1, 0], True),  # it may
        ((0.0, 0.01, 0.0, 0.01), [0] * 5, True),  # it still reads
        ((0.0, 0.2, 0.0, 0.2), [0] * 5, True),  # it may
    ],
)
def test_what_lies_beyond_the_length_where_all_is_lost_is_given_up(rise, answers, goes_on):
    standard = losses(1024, 0.0, 0.0, 0.0, 0.0, task=INSIDE)
    for give_up in (True, False):
        found = cells(Stopping(give_up=give_up, standard=standard))
        asked(found, 1024, answers)
        *first, last = losses(1024, *rise)
        found.take(first)
        assert found.wanted(losses(2048, 0.0)[0]), "before the octave is read"
        found.take([last])
        assert found.wanted(losses(2048, 0.0)[0]) == found.wanted(answer(2048, 1)[0]) == (goes_on or not give_up)
        assert found.wanted(losses(512, 0.0)[0]), "shorter lengths go on"


def test_nothing_is_given_up_inside_the_window():
    found = cells(Stopping(give_up=True, standard=losses(512, 0.0, 0.0, task=INSIDE)))
    asked(found, 512, [0] * 10)
    found.take(losses(512, 9.0, 9.1))
    assert found.wanted(losses(1024, 0.0)[0])


def test_rows_are_kept_and_known():
    found = cells()
    rows = [*losses(256, 1.0, 2.0), *answer(1024, 1)]
    found.take(rows)
    assert found.rows == rows
    assert all(map(found.has, rows))
    assert not found.has(answer(1024, 1, 7)[0])


def test_shared_texts_are_only_called_good_after_a_second_one():
    """Questions to one text are alike: a first text that decides by itself is not enough, nor a single question to the second."""
    found = Cells(WINDOW, UNTIL_DECIDED, depths=DEPTHS, decide=True, shared=[NEEDLE])
    assert asked(found, 1024, [1] * 40) == 40
    found.end_text([])
    assert asked(found, 1024, [1] * 25) == 2 * DEPTHS
    bad = Cells(WINDOW, UNTIL_DECIDED, depths=DEPTHS, decide=True, shared=[NEEDLE])
    assert asked(bad, 1024, [0] * 40) == DEPTHS, "what fails on one text has failed"
