import pytest
import torch

from longreach.core.errors import SpecError
from longreach.engine.tables import read_at
from longreach.positions.tables.stretch_positions import StretchPositions


def stretched(table, keep, factor):
    """Long-CLIP by its definition, one row after the other: kept rows, then `factor` rows a step from each row towards the next."""
    rows = [table[i] for i in range(keep)]
    for i in range(keep, len(table)):
        step = table[i + 1] - table[i] if i + 1 < len(table) else table[i] - table[i - 1]
        rows += [table[i] + step * k / factor for k in range(factor)]
    return torch.stack(rows)


@pytest.mark.parametrize(("window", "keep", "factor", "length"), [(77, 20, 4, 248), (77, 20, 1, 77), (512, 20, 8, 3956), (5, 4, 3, 7)])
def test_the_table_is_that_of_the_paper(window, keep, factor, length):
    table = torch.randn(window, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = read_at(table, 0, StretchPositions(factor=factor, keep=keep).places(window))
    assert ours.shape == (length, 16)
    torch.testing.assert_close(ours, stretched(table, keep, factor), rtol=0, atol=1e-12)
    assert torch.equal(ours[:keep], table[:keep])


def test_the_default_is_the_papers():
    assert StretchPositions(factor=4).keep == 20


@pytest.mark.parametrize(("window", "target"), [(77, 248), (128, 512), (1024, 4096), (512, 513)])
def test_suggestions_have_just_the_target(window, target):
    (method,) = StretchPositions.suggest(window, target)
    assert len(method.places(window)) == target


def test_a_table_too_short_to_keep_so_much_is_refused():
    assert StretchPositions.suggest(32, 128) == ()
    with pytest.raises(SpecError, match=r"stretch_positions: keep=40 must be below the 32 positions of the model"):
        StretchPositions(factor=4, keep=40).places(32)
