import numpy as np
import pytest
import torch

from longreach.engine.tables import read_at
from longreach.positions.tables.interpolated_positions import InterpolatedPositions


@pytest.mark.parametrize("factor", [2, 4, 1.5])
def test_rows_stand_between_the_trained_ones(factor):
    table = torch.randn(32, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = read_at(table, 0, InterpolatedPositions(factor=factor).places(32))
    assert len(ours) == 32 * factor
    inside = np.arange(len(ours)) / factor <= 31
    columns = [np.interp(np.arange(len(ours)) / factor, np.arange(32), column) for column in table.T.numpy()]
    torch.testing.assert_close(ours[inside], torch.tensor(np.stack(columns, 1))[inside], rtol=0, atol=1e-12)
    last = (len(ours) - 1) / factor - 31
    torch.testing.assert_close(ours[-1], table[31] + (table[31] - table[30]) * last)


def test_trained_rows_are_kept_bit_for_bit_in_any_dtype():
    for dtype in (torch.float32, torch.bfloat16):
        table = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
        ours = read_at(table, 0, InterpolatedPositions(factor=4).places(32))
        assert ours.dtype == dtype
        assert torch.equal(ours[::4], table)


@pytest.mark.parametrize(("window", "target"), [(100, 777), (1024, 4096), (2048, 2049)])
def test_suggestions_have_just_the_target(window, target):
    (method,) = InterpolatedPositions.suggest(window, target)
    assert len(method.places(window)) == target
