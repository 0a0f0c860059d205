"""Length-controlled win rates of simulated systems whose quality is known."""

from dataclasses import replace

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.preferences.difficulty import Gamed
from longreach.evaluation.preferences.length_controlled import compare
from tests.evaluation.preferences.simulated import sigmoid, simulated


def only(*files, **settings):
    return compare(files, resamples=settings.pop("resamples", 20), **settings)[0]


def test_longer_outputs_of_equal_quality_win_half_at_equal_lengths():
    found = only(simulated(1, 4000, quality=0.0, effect=1.5, extra=0.8), resamples=200)
    assert found.win_rate.low > 60
    assert found.controlled.rate.mean == pytest.approx(50, abs=3 * found.controlled.standard_error)
    assert found.controlled.standard_error < 1.2
    assert found.controlled.length == pytest.approx(1.5, abs=0.15)
    assert found.controlled.longer == pytest.approx(100 * sigmoid(1.5 * np.tanh(1)), abs=5)
    assert found.controlled.shorter == pytest.approx(100 * sigmoid(-1.5 * np.tanh(1)), abs=5)


def test_quality_comes_back_and_its_interval_holds_it():
    hardness = np.random.default_rng(0).normal(size=4000)
    file = simulated(2, 4000, quality=-0.7, effect=1.0, extra=0.5, hardness=hardness)
    found = only(file, difficulty=dict(enumerate(hardness)), resamples=200).controlled
    truth = 100 * float(sigmoid(hardness - 0.7).mean())
    assert found.rate.low < truth < found.rate.high
    assert found.rate.high - found.rate.low < 6
    assert (found.length, found.difficulty, found.constant) == pytest.approx((1.0, 1.0, -0.7), abs=0.2)


def test_intervals_hold_the_truth_as_often_as_they_say_and_the_published_error_does_not():
    inside, narrow = 0, 0
    truth = 100 * float(sigmoid(np.random.default_rng(1).normal(0.5, 1.5, 200_000)).mean())
    for seed in range(200):
        hardness = np.random.default_rng(1000 + seed).normal(0, 1.5, 100)
        file = simulated(seed, 100, quality=0.5, effect=1.0, extra=0.7, hardness=hardness)
        found = only(file, difficulty=dict(enumerate(hardness)), resamples=80, seed=seed).controlled
        inside += found.rate.low <= truth <= found.rate.high
        narrow += abs(found.rate.mean - truth) <= 1.96 * found.sem
    assert 0.88 <= inside / 200 <= 0.99
    assert narrow / 200 < 0.8


def test_without_an_effect_of_length_nothing_is_corrected():
    found = only(simulated(3, 4000, quality=0.6, effect=0.0, extra=0.8))
    assert found.controlled.rate.mean == pytest.approx(found.win_rate.mean, abs=1.5)
    assert found.effect.deviance < 0.005
    assert abs(found.effect.spearman) < 0.05


def test_swapping_the_systems_gives_the_rest_to_100():
    hardness = dict(enumerate(np.random.default_rng(0).normal(size=300)))
    for settings in ({}, {"difficulty": hardness}):
        file = simulated(4, 300, quality=0.5, effect=1.0, extra=0.5)
        one, other = only(file, **settings), only(file.against("tested").against("base").against("tested"), **settings)
        assert other.system == "base"
        assert other.controlled.rate.mean == pytest.approx(100 - one.controlled.rate.mean, abs=1e-6)
        assert other.win_rate.mean == pytest.approx(100 - one.win_rate.mean)
        assert other.controlled.length == pytest.approx(one.controlled.length, abs=1e-6)
        assert other.effect.deviance == pytest.approx(one.effect.deviance, abs=1e-9)


def test_probabilities_are_fitted_as_such():
    found = only(simulated(5, 500, quality=-1.0, effect=0.8, extra=0.5, soft=True))
    assert found.controlled.rate.mean == pytest.approx(100 * sigmoid(-1.0), abs=0.3)
    assert found.effect.deviance > 0.999  # of what is not the annotators' own doubt
    assert found.effect.mcfadden < 0.2


def test_ties_alone_are_half_a_win():
    file = simulated(6, 100)
    found = only(replace(file, preference=np.full(100, 0.5)))
    assert (found.win_rate.mean, found.controlled.rate.mean, found.effect.deviance) == (50, 50, 0)


def test_failed_comparisons_are_counted_and_not_fitted():
    file = simulated(7, 300, quality=0.3, effect=1.0)
    preference = np.where(np.arange(300) < 40, np.nan, file.preference)
    found = only(replace(file, preference=preference))
    assert (found.judged, found.failed) == (260, 40)
    assert found.win_rate.mean == pytest.approx(100 * file.preference[40:].mean())
    assert np.isfinite(found.controlled.rate.mean)


def test_what_length_cannot_be_told_from_is_said():
    file = simulated(8, 60, quality=0.4)
    same = only(replace(file, lengths=file.baseline_lengths + 7))
    assert same.controlled is None
    assert same.effect is None
    assert "the difference of lengths is the same everywhere" in same.note
    assert same.win_rate.mean == pytest.approx(100 * file.preference.mean())
    told = only(replace(file, preference=(file.longer > 0).astype(float)))
    assert told.controlled is None
    assert "length tells every winner" in told.note
    lost = only(replace(file, preference=np.zeros(60)))
    assert lost.controlled is None
    assert "base wins every comparison" in lost.note
    long = only(simulated(9, 200, effect=1.0, extra=4.0))
    assert "% of its outputs are longer: what it would win at equal lengths is extrapolated" in long.note


def test_a_rate_that_the_penalty_alone_makes_is_said():
    found = only(simulated(6, 24, quality=0.5), resamples=100)
    assert (found.controlled.rate.mean, found.controlled.length, found.controlled.constant) == (50, 0, 0)
    assert "the rate is 50 for want of comparisons" in found.note
    assert found.controlled.rate.high - found.controlled.rate.low > 20


def family(count, systems, spread=1.5):
    """Systems of which one instruction is as hard as for all others."""
    hardness = np.random.default_rng(0).normal(0, spread, count)
    made = [
        simulated(20 + n, count, quality=n / 2 - 1, effect=1.0, extra=0.4, hardness=hardness, name=f"system {n}") for n in range(systems)
    ]
    return hardness, made


def test_difficulty_comes_from_the_other_files():
    hardness, files = family(600, 8)
    found = compare(files, resamples=20)
    assert [one.controlled.rate.mean for one in found] == sorted((one.controlled.rate.mean for one in found), reverse=True)
    for one in found:
        truth = 100 * float(sigmoid(hardness + int(one.system[-1]) / 2 - 1).mean())
        assert one.model == "length and difficulty estimated from 7 other files"
        assert one.controlled.difficulty > 0.4
        assert one.controlled.rate.mean == pytest.approx(truth, abs=5)


def test_a_systems_own_preferences_do_not_make_its_difficulty():
    _, files = family(200, 3)
    changed = replace(files[0], preference=1 - files[0].preference)
    before, after = (next(one for one in compare(made, resamples=2) if one.system == "system 1") for made in (files, [changed, *files[1:]]))
    assert before.controlled.difficulty != pytest.approx(after.controlled.difficulty, abs=0.05)  # of another file, they do
    own = [
        next(one for one in compare([replace(files[0], preference=p), *files[1:]], resamples=2) if one.system == "system 0").controlled
        for p in (files[0].preference, 1 - files[0].preference)
    ]
    # Were its own preferences in it, both fits would find that difficulty explains them.
    assert own[0].difficulty == pytest.approx(-own[1].difficulty, abs=1e-6)


def test_files_without_a_common_instruction_have_no_difficulty():
    one = simulated(1, 100, name="a")
    other = replace(simulated(2, 100, name="b"), instructions=tuple(f"else {n}" for n in range(100)))
    assert [found.model for found in compare([one, other], resamples=2)] == ["length", "length"]
    assert compare([one, other], resamples=2)[0].controlled.sem is None


def test_gamed_baselines_hold_the_effect_of_length():
    file = simulated(3, 60, quality=0.3, effect=4.0, extra=0.5)
    rng = np.random.default_rng(0)
    feature, hardness = rng.uniform(-0.9, 0.9, 4000), rng.normal(size=4000)
    gamed = Gamed(feature=feature, difficulty=hardness, preference=sigmoid(0.5 * feature), by_index=dict(enumerate(hardness[:60])))
    free, held = only(file, difficulty=gamed.by_index), only(file, gamed=gamed)
    assert held.model == "length and given difficulty, effect of length held by gamed baselines"
    assert 0.5 < held.controlled.length < free.controlled.length - 1
    with pytest.raises(InputError, match="instruction 60 has no difficulty"):
        only(simulated(3, 61), gamed=gamed)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="tested.json: 19 comparisons have a preference; at least 20 are needed"):
        only(simulated(1, 19))
    with pytest.raises(InputError, match="different baselines, base, other; name the common one with --baseline"):
        compare([simulated(1, 30), replace(simulated(1, 30), baseline="other")])
    with pytest.raises(InputError, match="different annotators, human, judge; compare them one by one"):
        compare([simulated(1, 30), replace(simulated(1, 30), annotator="human")])
