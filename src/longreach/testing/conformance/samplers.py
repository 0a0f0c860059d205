"""What holds for every position sampler: which tokens it shows, where they stand, and that it reaches the whole target."""

from collections.abc import Iterator

import numpy as np
import torch

from longreach.core.method import Method
from longreach.testing.conformance.base import Check, require, same
from longreach.training.samplers.base import Array, Geometry, PositionSampler

_LENGTHS = ((32, 256), (64, 512), (24, 200))  # (trained window, target); the last is no multiple
_DRAWS = 200
_COVERING = 4000  # draws, over which every position has to be seen


def check_lengths_are_kept(sampler: PositionSampler) -> int:
    """A sequence has exactly the tokens that were asked for, and a position for each."""
    compared = 0
    for geometry, indices, positions in _draws(sampler):
        compared += require(indices.shape == positions.shape == (geometry.seq_len,), f"{indices.shape} and {positions.shape}")
    return compared


def check_positions_ascend(sampler: PositionSampler) -> int:
    """Positions rise from token to token, from 0 to below the target, and are whole numbers unless the sampler scales them."""
    compared = 0
    for geometry, _, positions in _draws(sampler):
        require(bool((np.diff(positions) > 0).all()), f"positions fall or stand still: {positions.tolist()}")
        require(positions[0] >= 0 and positions[-1] < geometry.target, f"positions {positions[0]} to {positions[-1]} of {geometry.target}")
        compared += require(positions.dtype.kind == "i" or sampler.uniform_scaling, f"positions are {positions.dtype}")
    return compared


def check_text_is_read_forwards(sampler: PositionSampler) -> int:
    """The indices are whole numbers that rise, inside the span that the sampler asks for."""
    compared = 0
    for geometry, indices, _ in _draws(sampler):
        require(indices.dtype.kind == "i" and bool((np.diff(indices) > 0).all()), f"indices {indices.tolist()}")
        compared += require(indices[0] >= 0 and indices[-1] < sampler.span(geometry), f"indices {indices[0]} to {indices[-1]}")
    return compared


def check_target_is_covered(sampler: PositionSampler) -> int:
    """Over many sequences every position of the target is seen, and the span of their distances is the target's."""
    geometry = _geometry(sampler, 32, 128)
    rng = np.random.default_rng(0)
    seen, longest = np.zeros(geometry.target, dtype=bool), 0.0
    for _ in range(_COVERING):
        positions = sampler.sample(rng, geometry)[1]
        seen[positions.astype(int)] = True
        longest = max(longest, float(positions[-1] - positions[0]))
    require(bool(seen.all()), f"never seen: positions {np.flatnonzero(~seen)[:8].tolist()} of {geometry.target}")
    return int(seen.sum()) + require(longest >= 0.9 * geometry.target, f"no distance above {longest:g} of {geometry.target}")


def check_same_rng_same_positions(sampler: PositionSampler) -> int:
    """The random generator decides alone, and is used: other seeds give other sequences, unless there is only one."""
    geometry = _geometry(sampler, 32, 256)
    first, again = (sampler.sample(np.random.default_rng(1), geometry) for _ in range(2))
    compared = sum(same(torch.from_numpy(one), torch.from_numpy(two), "the same seed") for one, two in zip(again, first, strict=True))
    others = {sampler.sample(np.random.default_rng(seed), geometry)[1].tobytes() for seed in range(8)}
    only_one = geometry.seq_len == geometry.target
    return compared + require((len(others) == 1) == only_one, f"8 seeds give {len(others)} sets of positions")


def _geometry(sampler: PositionSampler, window: int, target: int) -> Geometry:
    return Geometry(seq_len=sampler.seq_len(None, window, target), target=target, trained_window=window)


def _draws(sampler: PositionSampler) -> Iterator[tuple[Geometry, Array, Array]]:
    for window, target in _LENGTHS:
        geometry, rng = _geometry(sampler, window, target), np.random.default_rng(window)
        for _ in range(_DRAWS):
            yield geometry, *sampler.sample(rng, geometry)


def _is_sampler(method: Method) -> bool:
    return isinstance(method, PositionSampler)


CHECKS = [
    Check(run=run, applies=_is_sampler)
    for run in (
        check_lengths_are_kept,
        check_positions_ascend,
        check_text_is_read_forwards,
        check_target_is_covered,
        check_same_rng_same_positions,
    )
]
