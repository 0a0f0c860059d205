from dataclasses import replace

import pytest

from longreach.stretching.choice import RULES, choose, screening_order, verdict
from tests.evaluation.made import TARGET, answers, losses, stand


def method(name, right=10, rise=0.0, *, of=10, speed=1000.0, **kinds):
    rows = [*answers(name, right, of, tokens_per_s=speed), *losses(name, rise, tokens_per_s=speed)]
    return stand(rows, **kinds)


def reader(name, rise=0.0, *, speed=1000.0, **kinds):
    """A method whose retrieval was not measured."""
    return stand(losses(name, rise, tokens_per_s=speed), **kinds)


STOCK = method("", right=2, rise=0.8)


def test_a_standing_is_what_the_rows_say():
    one = stand([*answers("a", 7), *losses("a", 0.25, inside=0.1)])
    assert one.retrieval.mean == pytest.approx(0.7)
    assert one.prompts == 80  # forty at each of two depths
    assert one.retrieval_inside.mean == 1
    assert one.reach == pytest.approx(0.7)
    assert one.inside.mean == pytest.approx(3.6)
    assert one.beyond.mean == pytest.approx(3.75)
    assert (one.tokens_per_s, one.peak_bytes) == (pytest.approx(1000), 2_000_000)


def test_the_rise_is_told_from_what_the_texts_cost():
    one = stand(losses("a", 0.25))
    assert one.rise == pytest.approx((0.25, 0.25, 0.25))
    assert one.beyond.high - one.beyond.low > 1  # the texts differ by a nat


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


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (method("a", 100, 0.04, of=100, speed=1), method("b", 94, 0.0, of=100, speed=9), "it has the best retrieval"),
        (method("a", 10, 0.0, speed=1), method("b", 10, 0.03, speed=9), "it has the lowest loss of those that retrieve as well"),
        (method("a", 10, 0.01, speed=9), method("b", 10, 0.0, speed=1), "it is the fastest of its equals"),
        (method("a", 95, 0.0, of=100, speed=9), method("b", 100, 0.02, of=100, speed=1), "it is the fastest of its equals"),
        (method("a", 10, 0.05, speed=1), method("b", 8, 0.0, speed=9), "it is the only one that is good enough"),
        (method("a", 10, 0.05, speed=1), method("b", 10, 0.051, speed=9), "it is the only one that is good enough"),
    ],
)
def test_retrieval_comes_first_then_loss_then_speed(better, worse, why):
    for order in ([STOCK, better, worse], [STOCK, worse, better]):
        choice = choose(order, "recall", TARGET)
        assert (choice.best, choice.good_enough) == (better, True)
        assert choice.reason.startswith("a retrieves ")
        assert choice.reason.endswith(f"; {why}.")


def test_a_tuned_model_wins_by_the_same_rule_if_it_kept_its_window():
    untuned, tuned = method("a", 94, 0.03, of=100, speed=9), method("a", 100, 0.0, of=100, speed=1, tuned=300)
    choice = choose([STOCK, untuned, tuned], "recall", TARGET)
    assert choice.best == tuned
    assert choice.reason.startswith("a, tuned 300 steps, retrieves 1.00 of 800 prompts")
    lost = replace(tuned, lost="loss inside the window +2.0% > +1%")
    assert choose([STOCK, untuned, lost], "recall", TARGET).best == untuned
    alone = choose([STOCK, lost], "recall", TARGET)
    assert (alone.best, alone.good_enough) == (lost, False)
    assert verdict(lost, alone, "recall") == "best, but loss inside the window +2.0% > +1%"


def test_what_cannot_be_told_is_not_good_enough():
    maybe, weak = method("maybe", 9, 0.0), method("weak", 5)  # 72 of 80 may be 0.81
    choice = choose([STOCK, maybe, weak], "recall", TARGET)
    assert (choice.best, choice.good_enough, choice.undecided) == (maybe, False, True)
    assert choice.reason.startswith("Undecided: maybe retrieves 0.90 of 80 prompts at 512 tokens (bar 0.90)")
    assert choice.reason.endswith("which is too few to tell (retrieval 0.81 to 0.95 of 80 prompts, bar 0.90).")
    assert verdict(maybe, choice, "recall").startswith("best so far, undecided: retrieval 0.81 to 0.95")
    few = stand([row for row in answers("few", 10) if int(row.settings["input"].split()[2]) < 10] + losses("few"))
    assert few.undecided == ["retrieval 0.84 to 1.00 of 20 prompts, bar 0.90: 35 would tell"]
    assert choose([STOCK, maybe, method("sure")], "recall", TARGET).best.method == "sure"


def test_the_model_as_it_is_can_win():
    able = method("", speed=9)
    choice = choose([able, method("a", speed=1)], "recall", TARGET)
    assert choice.best == able
    assert choice.reason.startswith("The model as it is retrieves 1.00 of 80 prompts at 512 tokens (bar 0.90)")


def test_where_none_is_good_enough_that_is_said_with_the_bar():
    near, far = method("near", 8, 0.2), method("far", 4, 0.0)
    choice = choose([STOCK, near, far], "recall", TARGET)
    assert (choice.best, choice.good_enough) == (near, False)
    assert choice.reason == (
        "No method is good enough for 512 tokens: the best, near, falls short (retrieval 0.80 < 0.90; loss +0.20 > +0.05)."
    )
    assert verdict(near, choice, "recall") == "best, but retrieval 0.80 < 0.90; loss +0.20 > +0.05"
    assert verdict(far, choice, "recall") == "retrieval 0.40 < 0.90"


def test_a_model_that_retrieves_nowhere_is_told_apart():
    stock = stand([*answers("", 1, at_window=4), *losses("", 0.8)])
    choice = choose([stock, method("a", 3)], "recall", TARGET)
    assert choice.reason.endswith("The model itself retrieves only 0.40 at its trained window, which no method repairs.")


def test_streaming_wants_the_loss_held_then_bounded_memory_then_speed():
    fast, bounded, slow = (
        reader("fast", speed=9),
        reader("bounded", 0.04, speed=2, bounded_memory=True, forgets=True),
        reader("slow", speed=1),
    )
    slower = reader("slower", -0.3, speed=1, bounded_memory=True, forgets=True)
    broken = reader("broken", 0.06, speed=99, bounded_memory=True)
    assert choose([fast, bounded, slow, broken], "streaming", TARGET).reason.endswith("it is the only one of bounded memory.")
    assert choose([fast, slower, bounded, broken], "streaming", TARGET).best == bounded
    assert choose([fast, slow, broken], "streaming", TARGET).best == fast
    alone = choose([slow, broken], "streaming", TARGET)
    assert (alone.best, alone.good_enough) == (slow, True)
    assert alone.reason == (
        "slow has a loss beyond the window of +0.000 nats from that inside (bar +0.05); it is the only one that is good enough."
    )


def test_streaming_without_a_good_one_takes_the_lowest_loss():
    choice = choose([reader("a", 0.3, speed=1), reader("b", 0.4, speed=9, bounded_memory=True)], "streaming", TARGET)
    assert (choice.best.method, choice.good_enough) == ("a", False)


def test_screening_weighs_retrieval_against_loss():
    order = screening_order([method("loses", 10, 1.5), method("weak", 2, 0.0), method("good", 9, 0.1)])
    assert [one.method for one in order] == ["good", "weak", "loses"]


def test_the_rules_state_their_bars():
    assert all("0.05 nats" in rule for rule in RULES.values())
    assert "at least 0.90" in RULES["recall"]
