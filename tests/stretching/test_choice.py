from dataclasses import replace

import pytest

from longreach.stretching.choice import RULES, choose, screening_order, verdict
from tests.evaluation.made import TARGET, answers, losses, stand


def method(name, right=10, rise=0.0, *, of=10, speed=1000.0, **kinds):
    rows = [*answers(name, right, of, tokens_per_s=speed), *losses(name, rise, tokens_per_s=speed)]
    return stand(rows, **{"complexity": (bool(name), False, int(bool(name))), **kinds})


def reader(name, rise=0.0, *, speed=1000.0, **kinds):
    """A method whose retrieval was not measured."""
    return stand(losses(name, rise, tokens_per_s=speed), **kinds)


STOCK = method("", right=2, rise=0.8)


def test_a_standing_is_what_the_rows_say():
    one = stand([*answers("a", 7), *losses("a", 0.25, inside=0.1)])
    assert one.retrieval.mean == pytest.approx(0.7)
    assert (one.right, one.prompts) == (56, 80)  # forty at each of two depths
    assert one.texts == 2
    assert one.retrieval_inside.mean == 1
    assert one.reach == pytest.approx(0.7)
    assert one.inside.mean == pytest.approx(3.6)
    assert one.beyond.mean == pytest.approx(3.75)
    assert (one.tokens_per_s, one.peak_bytes) == (pytest.approx(1000), 2_000_000)


def test_the_rise_is_told_from_what_the_texts_cost():
    one = stand(losses("a", 0.25))
    assert one.rise == pytest.approx((0.25, 0.25, 0.25))
    assert one.beyond.high - one.beyond.low > 0.5  # the texts differ by a nat


def test_long_octaves_weigh_more():
    rows = losses("a", 0.0)
    rows = [replace(row, score=row.score + 0.3) if row.length == 512 else row for row in rows]
    assert stand(rows).rise.mean == pytest.approx(0.3 * 256 / 384)


def test_what_forgets_never_wins_recall():
    perfect = method("sinks", 10, -0.5, speed=9000, forgets=True, bounded_memory=True)
    good, weak = method("good"), method("weak", right=5)
    assert choose([STOCK, perfect, good], "recall", TARGET).best == good
    lost = choose([STOCK, perfect, weak], "recall", TARGET)
    assert (lost.best, lost.good_enough) == (weak, False)
    assert choose([perfect], "recall", TARGET).best is None
    assert verdict(perfect, lost, "recall") == "forgets the middle of the text"


def test_what_was_only_screened_never_wins():
    screened, good = method("fast", speed=9000, screened=True), method("good", right=9)
    choice = choose([STOCK, screened, good], "recall", TARGET)
    assert choice.best == good
    assert verdict(screened, choice, "recall") == "screened out"


PLAIN, EXACT, STACK = (True, False, 1), (True, True, 1), (True, False, 2)  # a checkpoint holds it; none does; two methods


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (method("a", 100, 0.04, of=100, speed=1), method("b", 94, 0.0, of=100, speed=9), "it has the best retrieval"),
        (method("a", 10, 0.0, speed=1), method("b", 10, 0.03, speed=9), "it has the lowest loss of those that retrieve as well"),
        (method("a", 95, 0.0, of=100), method("b", 100, 0.03, of=100), "it has the lowest loss of those that retrieve as well"),
        (method("b", 10, 0.02, complexity=PLAIN), method("a", complexity=EXACT), "it is the simplest of those that are as good"),
        (method("b", 10, 0.02, complexity=PLAIN), method("a", complexity=STACK), "it is the simplest of those that are as good"),
        (method("b", 10, 0.0, speed=1), method("a", 10, 0.01, speed=9), "it is the simplest of those that are as good"),
        (method("a", 10, 0.01, speed=1), method("b", 10, 0.01, speed=9), "it is the simplest of those that are as good"),
        (method("a", 10, 0.05, speed=1), method("b", 7, 0.0, speed=9), "it is the only one that is good enough"),
        (method("a", 10, 0.05, speed=1), method("b", 10, 0.051, speed=9), "it is the only one that is good enough"),
    ],
)
def test_retrieval_comes_first_then_loss_then_simplicity_then_the_name(better, worse, why):
    for order in ([STOCK, better, worse], [STOCK, worse, better]):
        choice = choose(order, "recall", TARGET)
        assert (choice.best, choice.good_enough) == (better, True)
        assert choice.reason.startswith(f"{better.method} finds ")
        assert choice.reason.endswith(f"; {why}.")


def test_how_fast_a_method_is_decides_nothing():
    for fast in ("a", "b"):
        speeds = {name: 9000.0 if name == fast else 1.0 for name in "ab"}
        recall = [method(name, speed=speed) for name, speed in speeds.items()]
        reads = [reader(name, speed=speed) for name, speed in speeds.items()]
        assert choose(recall, "recall", TARGET).best.method == "a"
        assert choose(reads, "streaming", TARGET).best.method == "a"
        assert [one.method for one in screening_order(reversed(recall))] == ["a", "b"]


@pytest.mark.parametrize(("right", "short", "verdict_"), [(90, 1.0, True), (80, 1.0, False), (80, 0.75, True), (55, 0.75, False)])
def test_retrieval_is_held_to_85_percent_of_the_models_own(right, short, verdict_):
    one = method("a", right, of=100, short=short)
    assert one.bar == pytest.approx(0.85 * short)
    assert one.retrieves is verdict_
    choice = choose([method("", 2, 0.8, short=short), one], "recall", TARGET, short)
    assert choice.good_enough is verdict_
    assert f"{0.85 * short:.2f}" in choice.reason


def test_what_is_as_good_as_the_bar_cannot_be_told():
    one = method("a", 85, of=100)
    assert one.retrieves is None
    assert choose([one], "recall", TARGET, 1.0).undecided


def test_a_model_that_finds_little_inside_its_window_is_judged_by_its_loss():
    short = 0.4
    stock, finder, reader_ = (
        method("", 1, 0.8, short=None), method("finder", 10, 0.04, short=None), method("reader", 0, 0.0, short=None)
    )  # fmt: skip
    assert finder.retrieval is None
    choice = choose([stock, finder, reader_], "recall", TARGET, short)
    assert (choice.best, choice.good_enough) == (reader_, True), "who found more needles counts for nothing"
    assert choice.reason.endswith(
        "Inside its own window the model finds 40% of the needles, so that retrieval says nothing about it: the loss alone decided. "
        "For a model that reads on and on, use --for streaming."
    )
    forgets = method("sinks", 0, -0.5, short=None, forgets=True)
    assert choose([stock, forgets, reader_], "recall", TARGET, short).best == reader_
    for purpose, found in (("recall", 0.5), ("recall", None), ("streaming", short)):
        assert "says nothing" not in choose([stock, reader_], purpose, TARGET, found).reason


def test_a_method_that_was_lost_on_the_way_is_reported_with_its_length():
    lost = stand([row for row in [*answers("near", 1), *losses("near", 0.9)] if row.length <= 256])
    far = method("far", 8, 0.2)
    assert (lost.length, far.length) == (256, 512)
    choice = choose([STOCK, lost, far], "recall", TARGET)
    assert verdict(lost, choice, "recall") == "retrieval 0.10 < 0.85; loss +0.90 > +0.05 at 256 tokens"
    assert choice.best == far, "who came farther is better, however bad"
    alone = choose([lost], "recall", TARGET)
    assert alone.reason == (
        "No method is good enough for 512 tokens: the best, near, falls short at 256 tokens already "
        "(retrieval 0.10 < 0.85; loss +0.90 > +0.05)."
    )


def test_a_tuned_model_wins_by_the_same_rule_if_it_kept_its_window():
    untuned, tuned = method("a", 94, 0.03, of=100, speed=9), method("a", 100, 0.0, of=100, speed=1, tuned=300)
    choice = choose([STOCK, untuned, tuned], "recall", TARGET)
    assert choice.best == tuned
    assert choice.reason.startswith("a, tuned 300 steps, finds 800 of 800 needles")
    lost = replace(tuned, lost="loss inside the window +2.0% > +1%")
    assert choose([STOCK, untuned, lost], "recall", TARGET).best == untuned
    alone = choose([STOCK, lost], "recall", TARGET)
    assert (alone.best, alone.good_enough) == (lost, False)
    assert verdict(lost, alone, "recall") == "best, but loss inside the window +2.0% > +1% at 512 tokens"


def test_what_cannot_be_told_is_not_good_enough():
    maybe, weak = method("maybe", 9, 0.0), method("weak", 5)  # 72 of 80 may be less than 0.85
    choice = choose([STOCK, maybe, weak], "recall", TARGET)
    assert (choice.best, choice.good_enough, choice.undecided) == (maybe, False, True)
    assert choice.reason == (
        "Undecided: maybe finds 72 of 80 needles at 512 tokens (bar 0.85), and its loss beyond the window is +0.000 nats from that inside "
        "(bar +0.05). Too little was measured to tell (retrieval 0.78 to 0.98 of 80 questions, bar 0.85: 410 would tell)."
    )
    assert verdict(maybe, choice, "recall").startswith("best so far, undecided: retrieval 0.78 to 0.98 of 80 questions")
    assert choose([STOCK, maybe, method("sure")], "recall", TARGET).best.method == "sure"


def test_the_model_as_it_is_can_win():
    able = method("", speed=9)
    choice = choose([able, method("a", speed=1)], "recall", TARGET)
    assert choice.best == able
    assert choice.reason.startswith("The model as it is finds 80 of 80 needles at 512 tokens (bar 0.85)")


def test_where_none_is_good_enough_that_is_said_with_the_bar():
    near, far = method("near", 6, 0.2), method("far", 4, 0.0)
    choice = choose([STOCK, near, far], "recall", TARGET)
    assert (choice.best, choice.good_enough) == (near, False)
    assert choice.reason == (
        "No method is good enough for 512 tokens: the best, near, falls short (retrieval 0.60 < 0.85; loss +0.20 > +0.05)."
    )
    assert verdict(near, choice, "recall") == "best, but retrieval 0.60 < 0.85; loss +0.20 > +0.05 at 512 tokens"
    assert verdict(far, choice, "recall") == "retrieval 0.40 < 0.85 at 512 tokens"


def test_streaming_wants_the_loss_held_then_bounded_memory_then_simplicity():
    stacked, bounded, plain = (
        reader("stacked", speed=9, complexity=STACK),
        reader("bounded", 0.04, speed=2, bounded_memory=True, forgets=True, complexity=EXACT),
        reader("plain", 0.01, speed=1, complexity=PLAIN),
    )
    bounded_too = reader("lower", -0.3, speed=1, bounded_memory=True, forgets=True, complexity=STACK)
    broken = reader("broken", 0.06, speed=99, bounded_memory=True)
    assert choose([stacked, bounded, plain, broken], "streaming", TARGET).reason.endswith("it is the only one of bounded memory.")
    assert choose([stacked, bounded_too, bounded, broken], "streaming", TARGET).best == bounded_too
    assert choose([stacked, plain, broken], "streaming", TARGET).best == plain
    alone = choose([plain, broken], "streaming", TARGET)
    assert (alone.best, alone.good_enough) == (plain, True)
    assert alone.reason == (
        "plain has a loss beyond the window of +0.010 nats from that inside (bar +0.05); it is the only one that is good enough."
    )


def test_streaming_without_a_good_one_takes_the_lowest_loss():
    choice = choose([reader("a", 0.3, speed=1), reader("b", 0.4, speed=9, bounded_memory=True)], "streaming", TARGET)
    assert (choice.best.method, choice.good_enough) == ("a", False)


def test_screening_weighs_retrieval_against_loss():
    order = screening_order([method("loses", 10, 1.5), method("weak", 2, 0.0), method("good", 9, 0.1)])
    assert [one.method for one in order] == ["good", "weak", "loses"]


def test_the_rules_state_their_bars():
    assert all("0.05 nats" in rule for rule in RULES.values())
    assert "at least 85% of what the model itself finds" in RULES["recall"]
    assert not any("fast" in rule for rule in RULES.values())
