"""Each sampler against a plain second writing of its paper's rule, by distribution; what all share is in the conformance suite."""

import itertools
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.training.samplers.base import Geometry
from longreach.training.samplers.cream import Cream
from longreach.training.samplers.e2 import E2
from longreach.training.samplers.full_length import FullLength
from longreach.training.samplers.pose import Pose
from longreach.training.samplers.randomized import Randomized
from longreach.training.samplers.segmented import Segmented

DRAWS = 6000


def geometry(seq_len=12, target=48, window=12):
    return Geometry(seq_len=seq_len, target=target, trained_window=window)


def draws(sampler, where, count=DRAWS):
    rng = np.random.default_rng(3)
    return [sampler.sample(rng, where) for _ in range(count)]


def alike(ours, theirs, *, tolerance=0.02):
    """Two samples of one distribution: their cumulative shares differ nowhere by more (6000 draws: 0.02 is 1.5 times the 99 % bound)."""
    values = sorted(set(ours) | set(theirs))
    one, two = Counter(ours), Counter(theirs)
    share_one = share_two = 0.0
    for value in values:
        share_one, share_two = share_one + one[value] / len(ours), share_two + two[value] / len(theirs)
        assert abs(share_one - share_two) < tolerance * 1.5, f"up to {value}: {share_one:.3f} and {share_two:.3f}"


def chunks(positions):
    """(start, length) of every run of consecutive positions."""
    found = []
    for position in positions.tolist():
        if found and position == found[-1][0] + found[-1][1]:
            found[-1][1] += 1
        else:
            found.append([position, 1])
    return [tuple(chunk) for chunk in found]


# --- PoSE


def pose_of_the_paper(rng, length, target):
    """Two chunks: the first of 1 to half the tokens at 0, the second skips u; its text skips v on its own (algorithm and code)."""
    first = rng.randint(1, (length + 1) // 2)
    u, v = rng.randint(0, target - length), rng.randint(0, target - length)
    positions = [*range(first), *(u + place for place in range(first, length))]
    content = [*range(first), *(v + place for place in range(first, length))]
    return content, positions


def test_pose_is_the_papers():
    rng = random.Random(1)
    theirs = [pose_of_the_paper(rng, 12, 48) for _ in range(DRAWS)]
    ours = [(content.tolist(), positions.tolist()) for content, positions in draws(Pose(), geometry())]
    for place in range(12):
        alike([content[place] for content, _ in ours], [content[place] for content, _ in theirs])
        alike([positions[place] for _, positions in ours], [positions[place] for _, positions in theirs])


def test_poses_text_and_positions_skip_independently():
    found = draws(Pose(), geometry())
    skips = np.array([(content[-1], positions[-1]) for content, positions in found])
    assert abs(np.corrcoef(skips.T)[0, 1]) < 0.05


def test_more_chunks_skip_further_each_time():
    for content, positions in draws(Pose(chunks=4), geometry(), 500):
        for numbers in (content, positions):
            skips = numbers - np.arange(12)
            assert skips[0] == 0
            assert (np.diff(skips) >= 0).all()
            assert len(set(skips.tolist())) <= 4
            assert skips[-1] <= 48 - 12


# --- CREAM


def cream_of_the_paper(rng, length, target, sigma):
    """Head, middle, tail; the middle's end lies between alpha / 2 of its first place and of its last (formulas of the paper's code)."""
    factor = target // length
    ends = length // 3 if rng.random() < 0.5 else min(4 * factor, length // 3)
    middle = length - 2 * ends
    alpha = int(min(max(rng.gauss(1 + factor, sigma), 2), 2 * factor))
    low, high = int(ends + (middle - 1) * (alpha / 2)), int(alpha / 2 * length) - ends - 1
    end = rng.randint(low, max(low, high))
    return [*range(ends), *range(end - middle + 1, end + 1), *range(target - ends, target)]


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_cream_is_the_papers(sigma):
    rng = random.Random(1)
    theirs = [cream_of_the_paper(rng, 60, 240, sigma) for _ in range(DRAWS)]
    ours = [positions.tolist() for _, positions in draws(Cream(sigma=sigma), geometry(60, 240, 60))]
    for place in (0, 5, 17, 25, 30, 40, 55, 59):
        alike([positions[place] for positions in ours], [positions[place] for positions in theirs])


def test_cream_keeps_the_ends_and_looks_at_the_midst_most():
    found = [positions for _, positions in draws(Cream(sigma=1.0), geometry(60, 600, 60))]
    assert all(positions[0] == 0 and positions[-1] == 599 for positions in found)
    middles = np.array([positions[30] for positions in found])
    assert ((middles > 150) & (middles < 450)).mean() > 0.65  # half of the target


# --- E2-LLM


def test_e2_draws_scales_and_offsets_alike():
    """A position p is trained as if the model were stretched g times: p * g / (target / window) is whole, below g windows."""
    scales = Counter()
    for _, positions in draws(E2(sinks=0), geometry()):
        step = Fraction(float(positions[1] - positions[0])).limit_denominator(12)
        scale = 4 / step  # target / window = 4
        scales[scale] += 1
        undone = positions * float(scale) / 4
        assert np.allclose(undone, undone.round())
        assert undone[-1] < scale * 12
        assert np.allclose(np.diff(undone), 1)
    assert set(scales) == {1, 2, 3, 4}
    assert all(abs(count / DRAWS - 0.25) < 0.03 for count in scales.values())


def test_e2s_first_tokens_stay():
    for _, positions in draws(E2(), geometry(), 300):
        step = positions[1] - positions[0]
        assert np.allclose(positions[:4], np.arange(4) * step)
        assert np.allclose(np.diff(positions[4:]), step)


# --- segments, randomized, full length


def segments_of_the_paper(rng, length, target, segments):
    """Non-overlapping segments, by trying until none overlap."""
    size = length // segments
    while True:
        starts = sorted(rng.randint(0, target - size) for _ in range(segments))
        if all(later - earlier >= size for earlier, later in itertools.pairwise(starts)):
            return [start + place for start in starts for place in range(size)]


def test_segments_are_the_papers():
    rng = random.Random(1)
    theirs = [segments_of_the_paper(rng, 12, 48, 4) for _ in range(DRAWS)]
    found = draws(Segmented(), geometry())
    assert all((content == positions).all() for content, positions in found), "text stands where it stood"
    for place in range(12):
        alike([positions[place] for _, positions in found], [positions[place] for positions in theirs])


def test_randomized_positions_are_the_papers():
    rng = random.Random(1)
    theirs = [sorted(rng.sample(range(48), 12)) for _ in range(DRAWS)]
    found = draws(Randomized(), geometry())
    assert all((content == np.arange(12)).all() for content, _ in found), "the text runs on"
    for place in range(12):
        alike([positions[place] for _, positions in found], [positions[place] for positions in theirs])


def test_full_length_is_the_text_as_it_is():
    ((content, positions),) = draws(FullLength(), geometry(48), 1)
    assert content.tolist() == positions.tolist() == list(range(48))


# --- lengths that do not fit


@pytest.mark.parametrize(
    ("sampler", "wanted", "says"),
    [
        (Pose(), 49, "pose: sequences of 49 tokens; give 2 to 48, the target"),
        (Pose(), 1, "pose: sequences of 1 tokens; give 2 to 48"),
        (Pose(chunks=8), 4, "sequences of 4 tokens cannot hold 8 chunks"),
        (FullLength(), 12, "sequences have the target's 48 tokens, not 12"),
        (Segmented(), 10, "sequences of 10 tokens do not come apart into 4 segments"),
        (Cream(), 25, "a target of 48 tokens; it needs at least two sequences"),
        (E2(), 13, "sequences of 13 tokens; give at most the trained window of 12"),
    ],
)
def test_a_length_that_does_not_fit_is_refused(sampler, wanted, says):
    with pytest.raises(InputError, match=says):
        sampler.seq_len(wanted, 12, 48)


def test_the_usual_length_is_the_window():
    assert Pose().seq_len(None, 12, 48) == 12
    assert FullLength().seq_len(None, 12, 48) == 48
