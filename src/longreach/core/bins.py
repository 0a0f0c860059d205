"""Bin packing: which texts share a row."""

from collections.abc import Sequence


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of the items in each bin: the largest item first, each into the first bin that has room for it.

    It takes at most 11/9 of the fewest bins possible, and 6/9 of one more (Dosa, 2007). Equal items keep their order.
    Args: sizes: of the items, >= 0. capacity: of every bin.
    Raises: ValueError for an item larger than a bin.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        if sizes[item] > capacity:
            raise ValueError(f"an item of {sizes[item]} does not fit into bins of {capacity}")
        fitting = next((number for number, left in enumerate(room) if sizes[item] <= left), None)
        if fitting is None:
            fitting = len(bins)
            bins.append([])
            room.append(capacity)
        bins[fitting].append(item)
        room[fitting] -= sizes[item]
    return tuple(map(tuple, bins))
