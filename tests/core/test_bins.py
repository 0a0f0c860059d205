import random
from itertools import product

import pytest

from longreach.core.bins import first_fit_decreasing


@pytest.mark.parametrize(
    ("sizes", "capacity", "bins"),
    [
        ((), 5, ()),
        ((5,), 5, ((0,),)),
        ((3, 3, 2, 2), 5, ((0, 2), (1, 3))),
        ((2, 2, 3, 3), 5, ((2, 0), (3, 1))),
        ((1, 1, 1), 10, ((0, 1, 2),)),
        ((6, 5, 4, 3, 2), 6, ((0,), (1,), (2, 4), (3,))),  # the 2 goes into the first bin with room, not into the fullest
        ((0, 4, 0), 4, ((1, 0, 2),)),
    ],
)
def test_the_largest_go_first_into_the_first_bin_with_room(sizes, capacity, bins):
    assert first_fit_decreasing(sizes, capacity) == bins


def test_every_item_is_in_one_bin_and_no_bin_overflows():
    numbers = random.Random(0)
    for _ in range(200):
        capacity = numbers.randint(1, 60)
        sizes = [numbers.randint(0, capacity) for _ in range(numbers.randint(1, 40))]
        bins = first_fit_decreasing(sizes, capacity)
        assert sorted(item for each in bins for item in each) == list(range(len(sizes)))
        assert all(sum(sizes[item] for item in each) <= capacity for each in bins)
        assert sum(2 * sum(sizes[item] for item in each) <= capacity for each in bins) <= 1, "two bins could have been one"


def test_it_is_near_the_fewest_bins_possible():
    numbers = random.Random(1)
    for _ in range(60):
        sizes = [numbers.randint(1, 10) for _ in range(6)]
        fewest = next(
            count
            for count in range(1, 7)
            if any(
                all(sum(size for size, into in zip(sizes, where, strict=True) if into == each) <= 10 for each in range(count))
                for where in product(range(count), repeat=len(sizes))
            )
        )
        assert 9 * len(first_fit_decreasing(sizes, 10)) <= 11 * fewest + 6


def test_an_item_larger_than_a_bin_is_refused():
    with pytest.raises(ValueError, match="an item of 7 does not fit into bins of 6"):
        first_fit_decreasing([3, 7], 6)
